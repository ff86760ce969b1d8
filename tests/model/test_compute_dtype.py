"""The type that `auto` becomes follows from rates that are given here: no test depends on the machine."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dlma.errors import UserError
from dlma.model import compute_dtype
from dlma.model.compute_dtype import ALL_TRAINED, WORTH, decide, of_rates, rates, shapes_of, timed
from dlma.model.load import Lora, ModelSpec

LORA = Lora(rank=2, alpha=4.0, targets="all-linear")
SHAPES = Counter({(3, 4): 2})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DLMA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "products"


def spec(folder: Path, **changes) -> ModelSpec:
    return ModelSpec("m", folder, "auto", **{"lora": LORA} | changes)


class Timer:
    """Gives each type a rate, and counts how often it was asked."""

    def __init__(self, **given):
        self.given, self.asked = given, 0

    def __call__(self, shapes, dtype, threads):
        self.asked += 1
        return self.given[dtype]


@pytest.mark.parametrize(
    ("faster", "chosen"),
    [(0.2, "float32"), (1.0, "float32"), (WORTH - 0.01, "float32"), (WORTH, "bfloat16"), (4.0, "bfloat16")],
)
def test_bfloat16_is_chosen_where_it_is_worth_it(faster, chosen):
    choice = of_rates({"float32": 2e11, "bfloat16": faster * 2e11})
    assert choice.dtype == chosen
    assert choice.why == f"auto: float32 200, bfloat16 {200 * faster:.0f} GFLOP/s"


def test_products_are_timed_once_for_a_machine_a_library_set_and_shapes(cache, monkeypatch):
    timer = Timer(float32=1e9, bfloat16=3e9)
    assert rates(SHAPES, 1, timer) == rates(SHAPES, 1, timer) == {"float32": 1e9, "bfloat16": 3e9}
    assert timer.asked == 2
    rates(SHAPES, 2, timer)
    rates(Counter({(3, 4): 3}), 1, timer)
    monkeypatch.setattr(compute_dtype, "instructions", lambda: "another processor")
    rates(SHAPES, 1, timer)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    rates(SHAPES, 1, timer)
    assert timer.asked == 10 and len(list(cache.glob("*.json"))) == 5


@pytest.mark.parametrize(
    "content", ["", "[]", '{"rates": {"float32": 1e9}}', '{"rates": {"float32": 0, "bfloat16": 1}}']
)
def test_what_is_no_record_of_rates_is_measured_again(content, cache):
    timer = Timer(float32=1e9, bfloat16=3e9)
    rates(SHAPES, 1, timer)
    (kept,) = cache.glob("*.json")
    kept.write_text(content)
    assert rates(SHAPES, 1, timer) == timer.given and timer.asked == 4
    assert json.loads(kept.read_text())["rates"] == timer.given


def test_without_a_folder_to_keep_them_in_rates_are_measured_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DLMA_CACHE", str(tmp_path / "file"))
    assert rates(SHAPES, 1, Timer(float32=1e9, bfloat16=3e9))["bfloat16"] == 3e9


def test_the_shapes_are_those_of_the_models_matrices(tmp_path):
    one, two = torch.zeros(3, 4), torch.zeros(5, 4)
    save_file({"a.weight": one, "b.weight": one.clone(), "a.bias": torch.zeros(3)}, tmp_path / "1.safetensors")
    save_file({"c.weight": two}, tmp_path / "2.safetensors")
    assert shapes_of(spec(tmp_path)) == Counter({(3, 4): 2, (5, 4): 1})


def test_a_model_without_matrices_is_refused(tmp_path):
    save_file({"a.bias": torch.zeros(3)}, tmp_path / "1.safetensors")
    with pytest.raises(UserError, match="no matrices to time"):
        decide(spec(tmp_path), accelerator="cpu", threads=1)


def test_the_rate_is_that_of_all_products_together(monkeypatch):
    seconds = {(3, 4): 1.0, (5, 4): 10.0}
    monkeypatch.setattr(compute_dtype, "_seconds_of", lambda outputs, inputs, dtype: seconds[outputs, inputs])
    operations = 2 * 512 * (2 * 3 * 4 + 5 * 4)
    assert timed(Counter({(3, 4): 2, (5, 4): 1}), "float32", 1) == pytest.approx(operations / 12)


def test_timing_leaves_the_threads_as_they_were():
    before = torch.get_num_threads()
    assert timed(Counter({(8, 8): 1}), "bfloat16", 2) > 0
    assert torch.get_num_threads() == before


def test_where_all_weights_are_trained_they_stay_float32_on_any_device(tmp_path):
    for accelerator in ("cpu", "gpu", "mps"):
        assert decide(spec(tmp_path, lora=None), accelerator=accelerator, threads=1) == ALL_TRAINED


@pytest.mark.parametrize(("has", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_takes_bfloat16_where_it_has_it(has, chosen, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    assert decide(spec(tmp_path), accelerator="gpu", threads=1).dtype == chosen
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: has and (major, minor) == (14, 0))
    assert decide(spec(tmp_path), accelerator="mps", threads=1).dtype == chosen


def test_steps_of_small_rates_are_lost_in_bfloat16_weights():
    """Why there is no choice where all weights are trained: AdamW's step is about the rate, whatever the gradient."""
    for dtype, moves in ((torch.bfloat16, False), (torch.float32, True)):
        weight = torch.nn.Parameter(torch.full((4,), 0.02, dtype=dtype))
        optimizer = torch.optim.AdamW([weight], lr=1e-6, weight_decay=0.0)
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        assert torch.equal(weight, torch.full_like(weight, 0.02)) is not moves
