"""Two processes make the update of one: losses, gradients, weights; whole in each, and with the layers spread."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

TESTS = Path(__file__).parents[1] / "kit"
CASES = ["full", "lora", "spread"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(place, *cases):
    """Train each case in one process and in two; the folders of what they leave."""
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TESTS}:{TESTS.parents[1]}"}
    command = [sys.executable, str(TESTS / "ddp_worker.py"), str(place), str(free_port()), *cases]
    done = subprocess.run(command, env=shared, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "one", place / "two"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return run(tmp_path_factory.mktemp("ddp"), *CASES)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_make_the_update_of_one(folders, case):
    one, two = (torch.load(folder / f"{case}.pt") for folder in folders)
    assert len(one["log"]) == len(two["log"]) == 3
    for ours, theirs in zip(two["log"], one["log"], strict=True):
        assert ours == pytest.approx(theirs, rel=2e-5, abs=1e-6)
    assert one["gradient"].keys() == two["gradient"].keys()
    assert all("lora" in name for name in one["gradient"]) == (case == "lora")
    for name, gradient in one["gradient"].items():
        assert (two["gradient"][name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-9, name
    for name, weight in one["weights"].items():
        assert torch.allclose(two["weights"][name], weight, atol=2e-6), name


def test_both_processes_end_with_the_same_bits(folders):
    for case in CASES:
        first, second = (torch.load(folders[1] / name) for name in (f"{case}.pt", f"{case}.rank1.pt"))
        assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])


def test_one_policy_is_written(folders):
    for folder in folders:
        assert (folder / "full" / "policy" / "model.safetensors").is_file()
        assert (folder / "lora" / "policy" / "adapter_model.safetensors").is_file()
    assert (folders[0] / "full" / "train.csv").read_text().count("\n") == 4


def test_spread_layers_are_held_in_parts_and_saved_whole(folders):
    one, two = (torch.load(folder / "spread.pt") for folder in folders)
    assert 0.5 * one["held"] < two["held"] < 0.85 * one["held"]
    saved = load_file(folders[1] / "spread" / "policy" / "model.safetensors")
    assert all(torch.allclose(saved[name], two["weights"][name]) for name in saved)
    assert {name for name in saved if "layers" in name} == {name for name in two["weights"] if "layers" in name}


@pytest.mark.slow
@pytest.mark.parametrize("cases", [("spread", "resumed"), ("rounded", "rounded, resumed")])
def test_spread_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path, cases):
    for folder in run(tmp_path / "ddp", *cases):
        whole, resumed = (torch.load(folder / f"{case}.pt") for case in cases)
        assert resumed["log"] == whole["log"]
        assert not resumed["gradient"]  # of the first step, which was not made again
        assert all(torch.equal(resumed["weights"][name], weight) for name, weight in whole["weights"].items())
