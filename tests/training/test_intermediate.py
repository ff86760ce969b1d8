"""Policies kept on the way are what a run that stops there leaves, whether or not training was interrupted."""

import pytest
import torch
from safetensors.torch import load_file
from scored_examples import OPTIONS, scored_pairs
from small_models import small_model

from dlma.objective.dpo import DPO
from dlma.trainer.runtime import Runtime
from dlma.training.intermediate import SaveIntermediate, evenly


@pytest.mark.parametrize(
    ("count", "steps", "kept"),
    [(0, 10, []), (1, 10, [5]), (3, 8, [2, 4, 6]), (2, 10, [3, 6]), (5, 3, [1, 2]), (4, 1, []), (2, 0, [])],
)
def test_the_steps_lie_at_equal_distances_between_the_ends(count, steps, kept):
    assert evenly(count, steps) == kept


def trained(folder, epochs, count, pairs, stop=None):
    model = small_model()
    rule = DPO(model, **{**OPTIONS, "epochs": epochs})
    rule.intermediate = count

    def listen(row):
        if row["step"] == stop:
            raise KeyboardInterrupt

    rule.fit(pairs, Runtime(checkpoint_steps=1), folder, listen)
    return load_file(folder / "policy" / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_kept_policy_is_that_of_a_run_that_ends_there(tmp_path):
    pairs = scored_pairs(small_model(), n=8)
    whole = trained(tmp_path / "whole", 2, 1, pairs)
    short = trained(tmp_path / "short", 1, 0, pairs)
    (kept,) = (tmp_path / "whole" / "intermediate").iterdir()
    assert same(load_file(kept / "model.safetensors"), short)
    assert not same(whole, short)
    assert not (tmp_path / "short" / "intermediate").exists()


def test_an_interrupted_run_keeps_the_same_policies(tmp_path):
    pairs = scored_pairs(small_model(), n=8)
    trained(tmp_path / "whole", 3, 3, pairs)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", 3, 3, pairs, stop=3)
    trained(tmp_path / "cut", 3, 3, pairs)
    names = [sorted(p.name for p in (tmp_path / f / "intermediate").iterdir()) for f in ("whole", "cut")]
    assert names[0] == names[1] and len(names[0]) == 3
    for name in names[0]:
        one, other = (load_file(tmp_path / f / "intermediate" / name / "model.safetensors") for f in ("whole", "cut"))
        assert same(one, other)


def test_only_the_first_process_saves(tmp_path, monkeypatch):
    monkeypatch.setattr("dlma.training.intermediate.collectives.rank", lambda: 1)
    trainer = type("Trainer", (), {"global_step": 1})
    SaveIntermediate(tmp_path, [1]).on_train_batch_end(trainer, None, None, None, 0)
    assert not any(tmp_path.iterdir())
