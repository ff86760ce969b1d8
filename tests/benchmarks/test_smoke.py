"""Real measurements, on a model of a few thousand weights: a job in a process of its own, and the ledger's counts."""

import pytest
import torch

from benchmarks import flops, ledger
from benchmarks.measure import measure
from benchmarks.shapes import model_folder, shape_of

TINY = shape_of("tiny")
MEGABYTE = 2**20


@pytest.mark.slow
def test_a_measured_job_says_how_long_how_much_and_at_what_rate(monkeypatch, tmp_path):
    monkeypatch.setenv("DLMA_BENCH_FOLDER", str(tmp_path))
    model_folder(TINY)
    found = measure({"job": "dpo", "side": "ours", "shape": "tiny", "data": "imposed", "pairs": 8, "batch": 4})
    assert "error" not in found, found
    assert len(found["steps"]) == 2 and found["loss"] == pytest.approx(0.693, abs=0.01)
    assert found["wall"] > found["seconds"]["work"] > found["seconds"]["reference"] > 0
    assert found["peak"] >= found["loaded"] > 50 * MEGABYTE
    assert found["gemm"]["rate"] > 1e7 and found["later_flops"] > 0


@pytest.mark.slow
def test_trl_trains_on_the_same_pairs(monkeypatch, tmp_path):
    pytest.importorskip("trl")
    monkeypatch.setenv("DLMA_BENCH_FOLDER", str(tmp_path))
    model_folder(TINY)
    job = {"job": "dpo", "side": "trl_precomputed", "shape": "tiny", "data": "imposed", "pairs": 8, "batch": 4}
    found = measure(job)
    assert "error" not in found, found
    assert len(found["steps"]) == 2 and found["loss"] == pytest.approx(0.693, abs=0.01)


# The ledger


def test_a_counted_step_of_ours_is_four_passes_and_recomputes_attention_scores_only():
    shape = TINY
    found = ledger.counted(shape, "imposed", "ours", torch.float32)
    batch = ledger.Batch(ledger.pairs_of(shape, "imposed"), "ours")
    rows, width = batch.ids.shape
    passes = flops.forward(shape, rows, width, len(batch.target)) * (1 + flops.TRAINING)
    scores_again = 2 * rows * width**2 * shape.query_width * shape.layers  # in the gradient of a fused attention
    assert found["flops"] == (passes + scores_again) / found["pairs"]
    assert 0 < found["step"] < found["peak"]


def test_trl_on_padded_rows_takes_more_operations_than_ours():
    pytest.importorskip("trl")
    ours, trl, triton = (ledger.counted(TINY, "long", way, torch.float32) for way in ledger.WAYS)
    assert trl["flops"] > triton["flops"] > ours["flops"]
    assert trl["step"] > ours["step"] and trl["peak"] - trl["step"] > ours["peak"] - ours["step"]  # the reference


def test_the_fake_and_the_real_step_count_the_same_operations():
    counted = ledger.counted(TINY, "imposed", "ours", torch.float32)
    assert ledger.measured(TINY, "imposed", "ours")["flops"] == counted["flops"]
