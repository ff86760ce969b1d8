"""The pipeline of the benchmark: which prompts it is given, and where it ends."""

import pytest

from benchmarks import whole
from dlma.data.split import split_of
from dlma.data.text import prompt_id
from dlma.records import Turn
from dlma.store.store import Store


@pytest.fixture
def questions(monkeypatch):
    monkeypatch.setattr(whole, "shape_of", lambda name: name)
    monkeypatch.setattr(whole.workload, "asked", lambda shape: [f"what is lamp {i}?" for i in range(100)])


def test_both_sides_train_on_the_same_prompts_by_the_split_of_a_run(questions):
    ours, theirs = whole.asked(20, held_out=3), whole.asked(20)
    splits = [split_of(prompt_id([Turn("user", q)]), validation_share=0.1, test_share=0.1) for q in ours]
    assert [splits.count(name) for name in ("train", "validation", "test")] == [20, 3, 3]
    assert [q for q, split in zip(ours, splits, strict=True) if split == "train"] == theirs


def test_too_few_questions_are_told(questions):
    with pytest.raises(ValueError, match="too few questions"):
        whole.asked(200)


def test_a_run_ends_when_its_policy_is_there(tmp_path):
    store, made, before = Store(tmp_path / "store"), [], Store.make
    with pytest.raises(whole.Trained), whole.until_trained():
        for name in ("scored", "policy", "answers"):
            made.append(store.make(store.stage(name, {}), lambda folder: {}).name)
    assert made == ["scored"] and store.stage("policy", {}).done
    assert Store.make is before
