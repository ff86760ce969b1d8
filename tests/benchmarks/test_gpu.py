"""`make bench-gpu`: the whole of it at toy size on the CPU, and what its words rest on."""

import time

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import TOY, Bench, Figures, OutOfTime, at_most, cells, measured, rate_of, tables

CPU = torch.device("cpu")


@pytest.mark.slow
def test_the_script_runs_whole_at_toy_size(capsys):
    bench = Bench(CPU, TOY)
    left = measured(bench, 300)
    text = tables(bench, 1e12, "assumed", left)
    assert left == [] and [one.failed for one in bench.found] == [""] * len(bench.found)
    assert {(one.work, one.side) for one in bench.found} >= {
        ("DPO, adapter", "ours"),
        ("DPO, all weights", "ours"),
        ("scoring", "ours"),
        ("scoring", "fair plain scorer"),
        ("sampling", "ours"),
        ("sampling", "generate"),
    }
    assert all(one.tokens > 0 and one.seconds > 0 and one.operations > 0 for one in bench.found)
    sides = {}
    for one in bench.found:
        sides.setdefault(one.work, set()).add((one.tokens, one.operations))
    assert all(len(work) == 1 for work in sides.values())  # both sides do the same
    assert set(bench.attention["tiny"]) == {"SDPA, trees", "flex, trees", "flash, rows"}
    assert "these figures mean nothing" in text and text.count("| tiny |") == len(bench.found) + 3


def test_without_a_gpu_it_says_what_there_is_instead(capsys):
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    assert gpu.main([]) == 2
    assert "--toy walks through it on the CPU" in capsys.readouterr().err


def test_what_no_time_is_left_for_is_named():
    bench = Bench(CPU, TOY)
    bench.carry_out = lambda: time.sleep(5)
    left = measured(bench, 0.05)
    assert left[0] == "tiny, DPO, adapter, ours" and left[-1] == "tiny, attention"
    assert f"No time was left for: {left[0]}; " in tables(bench, 1e12, "assumed", left)
    with pytest.raises(OutOfTime), at_most(0.05):
        time.sleep(5)


def test_the_device_has_its_datasheets_rate_or_the_best_product_here():
    assert rate_of(CPU, "NVIDIA H200")[0] == 989.4e12
    assert rate_of(CPU, "NVIDIA A100-SXM4-80GB")[0] == 312e12
    assert rate_of(CPU, "NVIDIA GeForce RTX 4090")[0] == 165.2e12
    assert rate_of(CPU, "NVIDIA L40S")[0] == 362.05e12 and rate_of(CPU, "NVIDIA L4")[0] == 121e12
    for other in ("H100 PCIe", "H100 NVL", "GeForce RTX 4090 Laptop GPU", "GeForce RTX 4090 D"):
        assert "measured here" in rate_of(CPU, f"NVIDIA {other}")[1]
    rate, source = rate_of(CPU, "Some Other Device")
    assert rate > 0 and source == "best matrix product measured here"


def test_a_row_has_tokens_a_second_the_share_of_the_rate_and_the_peak():
    one = Figures("1B", "scoring", "ours", tokens=3000, seconds=2.0, operations=8e12, peak=5_000_000_000)
    assert cells(one, 10e12) == ["1B", "scoring", "ours", "1,500", "40.0%", "5.0"]
    assert cells(Figures("8B", "scoring", "ours", failed="does not fit"), 1e12)[3:] == ["does not fit", "", ""]
