"""The official code's training rows, each fault alone: what it changes, and that it changes nothing else."""

import dataclasses

import pytest
from small_models import small_model

from dlma.pairs.official import OfficialPairs
from dlma.pairs.sampled import SampledPairs
from dlma.records import Context
from dlma.sampler.local import LocalSampler

QUESTION = "w40 w41 w42"


class Shard:
    index = 0

    def __init__(self, rows):
        self.rows = rows


@pytest.fixture(scope="module")
def model():
    return small_model("llama")


def made(model, **faults):
    tokenizer = model.tokenizer
    ids = {side: [tokenizer.bos_token_id, 20 + i, 30, 31] for i, side in enumerate(("plain", "positive", "negative"))}
    row = Context(
        prompt_id="p", question=QUESTION, category=None, wording="w", dropped_turns=0,
        plain_ids=ids["plain"], positive_ids=ids["positive"], negative_ids=ids["negative"],
    )  # fmt: skip
    rows = [dataclasses.replace(row, prompt_id=f"p{i}") for i in range(24)]
    sampler = LocalSampler(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=200)
    common = dict(seed=3, first="positive", second="negative")
    module = OfficialPairs(model, sampler, **common, **faults) if faults else SampledPairs(model, sampler, **common)
    return module.predict_step(Shard(rows), 0)


NONE = {"bare": False, "end_cut": False, "keep_start": None}


def test_without_a_fault_they_are_the_sampled_pairs(model):
    assert made(model, **NONE) == made(model)


def test_the_bare_row_is_the_question_after_a_bos_and_only_the_context_changes(model):
    for faulty, sound in zip(made(model, **{**NONE, "bare": True}), made(model), strict=True):
        ids = model.tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
        assert faulty.plain_context_ids == [model.tokenizer.bos_token_id, *ids]
        assert dataclasses.replace(faulty, plain_context_ids=sound.plain_context_ids) == sound


def test_an_answer_that_was_cut_gets_an_eos_and_a_whole_one_is_left_alone(model):
    eos, counts = model.tokenizer.eos_token_id, {True: 0, False: 0}
    for faulty, sound in zip(made(model, **{**NONE, "end_cut": True}), made(model), strict=True):
        for side in ("positive", "negative"):
            ids, finished = getattr(sound, f"{side}_ids"), getattr(sound, f"{side}_finished")
            counts[finished] += 1
            assert getattr(faulty, f"{side}_ids") == (ids if finished else [*ids, eos])
            assert getattr(faulty, f"{side}_finished")
    assert min(counts.values()) > 0


def test_keeping_the_start_loses_the_end_of_the_context(model):
    for faulty, sound in zip(made(model, **{**NONE, "keep_start": 2}), made(model), strict=True):
        assert faulty.plain_context_ids == sound.plain_context_ids[:2]
        assert faulty.positive_context_ids == sound.positive_context_ids
