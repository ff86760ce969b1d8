"""Running out of memory halves the token budget, says so, and changes no result."""

import copy

import pytest
import torch
from scored_examples import OPTIONS, changed, scored_pairs
from small_models import small_model

from dlma.errors import UserError
from dlma.model import memory
from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.trees import Completion
from dlma.objective.dpo import DPO
from dlma.trainer.runtime import Runtime
from dlma.training import rule as training_rule

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
    MemoryError(),
]
GROUPS = [[Completion([0, 5 + i], [6, 7]), Completion([0, 5 + i], [8 + i])] for i in range(8)]


def limit(monkeypatch, tokens, error):
    """From now on a forward pass over more than `tokens` places fails; returns the places of those that ran."""
    original, ran = LanguageModel.states, []

    def states(self, ids, *rest):
        if ids.numel() > tokens:
            raise error
        ran.append(ids.numel())
        return original(self, ids, *rest)

    monkeypatch.setattr(LanguageModel, "states", states)
    return ran


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_scoring_goes_on_with_half_the_budget_and_the_same_result(monkeypatch, error):
    model = small_model()
    wanted = Engine(model).score(GROUPS)
    ran = limit(monkeypatch, 40, error)
    lines = []
    engine = Engine(model, notice=lines.append)
    for one, other in zip(engine.score(GROUPS), wanted, strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    assert max(ran) <= 40
    said = [line for line in lines if "out of memory" in line]
    assert said and engine.report()["halvings"] == len(said)
    assert f"{engine.token_budget} tokens" in said[-1]


def test_a_single_row_that_does_not_fit_is_one_clear_line(monkeypatch):
    model = small_model()
    Engine(model).score(GROUPS)
    limit(monkeypatch, 8, MemoryError())
    with pytest.raises(UserError, match=r"out of memory on a single row of 5 tokens: lower recipe\.max_prompt_tokens"):
        Engine(model).score(GROUPS)


def test_other_errors_are_not_swallowed(monkeypatch):
    model = small_model()
    Engine(model).score(GROUPS)
    limit(monkeypatch, 8, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        Engine(model).score(GROUPS)


def train(model, pairs, folder, **changes):
    rule = DPO(model, **changed(OPTIONS, **{"epochs": 1, "lr": 1e-4, **changes}))
    rule.fit(pairs, Runtime(), folder, lambda row: None)
    return rule


def test_a_training_step_is_tried_again_whole_with_the_same_update(monkeypatch, tmp_path):
    base = small_model(spread=0.15)
    pairs = scored_pairs(base, n=8)
    straight, halved = copy.deepcopy(base), copy.deepcopy(base)
    wanted = train(straight, pairs, tmp_path / "straight")
    lines = []
    monkeypatch.setattr(training_rule, "say_once", lines.append)
    original, backwards = DPO.loss, []

    def loss(self, micro):
        backwards.append(len(micro.columns.margin))
        if (
            len(micro.columns.margin) > 1 and len(backwards) > 1
        ):  # after a micro-batch whose gradient must be thrown away
            raise ERRORS[0]
        return original(self, micro)

    monkeypatch.setattr(DPO, "loss", loss)
    rule = train(halved, pairs, tmp_path / "halved")
    assert lines and all("out of memory" in line for line in lines)
    assert rule.engine.token_budget < wanted.engine.token_budget
    for ours, theirs in zip(rule.log_rows, wanted.log_rows, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    for one, other in zip(halved.network.parameters(), straight.network.parameters(), strict=True):
        assert torch.allclose(one, other, atol=2e-5)


def test_training_stops_with_one_line_when_single_pairs_do_not_fit(monkeypatch, tmp_path):
    model = small_model()
    pairs = scored_pairs(model, n=4)

    def loss(self, micro):
        raise MemoryError

    monkeypatch.setattr(DPO, "loss", loss)
    with pytest.raises(UserError, match="out of memory on a single row"):
        train(model, pairs, tmp_path)


def test_peak_memory_counts_what_was_held():
    before = memory.peak_bytes(torch.device("cpu"))
    held = torch.ones(64 << 20)
    assert memory.peak_bytes(torch.device("cpu")) >= max(before, held.numel() * 4)
