"""Devices that are not there: one line, whatever machine the test runs on."""

import pytest
import torch

from dlma.errors import UserError
from dlma.trainer import devices


def test_more_gpus_than_there_are_is_one_line_with_both_numbers():
    here = torch.cuda.device_count()
    with pytest.raises(UserError, match=rf"trainer.devices={here + 1}: torch sees {here} here; choose trainer=cpu"):
        devices.require("gpu", here + 1)


def test_what_is_there_passes():
    devices.require("cpu", 1)
    devices.require("cpu", 64)
    devices.require("gpu", torch.cuda.device_count())


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has an Apple GPU")
def test_an_apple_gpu_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match=r"trainer.accelerator=mps: torch sees no Apple GPU here"):
        devices.require("mps", 1)
