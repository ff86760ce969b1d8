"""Pairs against an unrelated prompt: what is sampled and scored under which context."""

import dataclasses

import pytest
from small_models import plain_logp, small_model

from dlma.errors import UserError
from dlma.pairs.sampled import SampledPairs
from dlma.pairs.unrelated import UnrelatedPairs
from dlma.records import Context
from dlma.sampler.local import LocalSampler
from dlma.scorer.self_reward import SelfReward
from dlma.trainer.runtime import Shard


def context(i):
    plain = [0, 5 + i, 6, 7]
    return Context(f"p{i}", f"q{i}", None, "w", plain, [*plain[:3], 8, 7], [*plain[:3], 9, 7], 0)


ROWS = [context(i) for i in range(12)]


@pytest.fixture(scope="module")
def model():
    return small_model()


def generator(model, **changes):
    sampler = LocalSampler(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=8)
    return UnrelatedPairs(model, sampler, **{**dict(seed=0, side="plain"), **changes})


def test_the_negative_context_is_another_prompts_own(model):
    pairs = generator(model).predict_step(Shard(0, ROWS), 0)
    plain = {row.prompt_id: row.plain_ids for row in ROWS}
    for pair in pairs:
        assert pair.plain_context_ids == pair.positive_context_ids == plain[pair.prompt_id]
        (other,) = [name for name, ids in plain.items() if ids == pair.negative_context_ids]
        assert other != pair.prompt_id
    assert len({tuple(pair.negative_context_ids) for pair in pairs}) > 4
    again, moved = (generator(model, seed=seed).predict_step(Shard(0, ROWS), 0) for seed in (0, 1))
    assert again == pairs
    assert [p.negative_context_ids for p in moved] != [p.negative_context_ids for p in pairs]


def test_the_other_side_of_the_prompts_can_be_taken(model):
    pairs = generator(model, side="positive").predict_step(Shard(0, ROWS), 0)
    assert [p.positive_context_ids for p in pairs] == [row.positive_ids for row in ROWS]
    assert all(p.negative_context_ids[3] == 8 for p in pairs)
    assert [p.plain_context_ids for p in pairs] == [row.plain_ids for row in ROWS]


def test_which_prompt_it_is_does_not_depend_on_the_shards(model):
    whole = generator(model).predict_step(Shard(0, ROWS), 0)
    parts = [p for i in (0, 6) for p in generator(model).predict_step(Shard(i, ROWS[i : i + 6], ROWS), 0)]
    assert parts == whole


def test_the_answers_are_those_of_their_contexts(model):
    pairs = generator(model).predict_step(Shard(0, ROWS), 0)
    rows = [
        dataclasses.replace(row, positive_ids=pair.positive_context_ids, negative_ids=pair.negative_context_ids)
        for row, pair in zip(ROWS, pairs, strict=True)
    ]
    plain = SampledPairs(model, generator(model).sampler, seed=0, first="positive", second="negative")
    assert plain.predict_step(Shard(0, rows), 0) == pairs


def test_r_is_a_difference_of_mutual_informations(model):
    pair = generator(model).predict_step(Shard(0, ROWS), 0)[0]
    own, foreign = pair.plain_context_ids, pair.negative_context_ids
    information = [
        (plain_logp(model.network, own, ids) - plain_logp(model.network, foreign, ids)).item()
        for ids in (pair.positive_ids, pair.negative_ids)
    ]
    (scored,) = SelfReward(model).score([pair])
    assert scored.margin == pytest.approx(information[0] - information[1], abs=1e-4)


def test_one_prompt_has_no_other(model):
    with pytest.raises(UserError, match="pairs=unrelated"):
        generator(model).predict_step(Shard(0, ROWS[:1]), 0)
