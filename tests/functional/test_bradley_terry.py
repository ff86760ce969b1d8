"""The Bradley-Terry loss, by hand."""

import math

import pytest
import torch

from dlma.functional.bradley_terry import bradley_terry_loss


def test_the_loss_is_minus_the_log_probability_of_the_label():
    chosen, rejected = torch.tensor([2.0, 0.0]), torch.tensor([0.5, 1.0])
    found = bradley_terry_loss(chosen, rejected, torch.tensor([9.0, -9.0]), margin_weight=0.0)
    assert found.tolist() == pytest.approx([-math.log(1 / (1 + math.exp(-d))) for d in (1.5, -1.0)])


def test_a_margin_asks_for_a_larger_difference():
    one = bradley_terry_loss(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(2.0), margin_weight=0.25)
    assert one.item() == pytest.approx(math.log(1 + math.exp(-0.5)))


def test_only_the_difference_of_rewards_counts():
    a, b = torch.tensor([1.0, -3.0]), torch.tensor([0.2, 4.0])
    free = torch.zeros(2)
    assert torch.allclose(
        bradley_terry_loss(a + 7, b + 7, free, margin_weight=1.0), bradley_terry_loss(a, b, free, margin_weight=1.0)
    )
