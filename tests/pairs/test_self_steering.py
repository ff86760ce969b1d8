"""Pairs of Self-Steering Optimization: whose answers they have, and which prompts are left out."""

import pytest
from small_models import small_model

from dlma.pairs.sampled import SampledPairs
from dlma.pairs.self_steering import SelfSteeringPairs
from dlma.records import Context
from dlma.sampler.local import LocalSampler
from dlma.trainer.runtime import Shard

ROWS = [Context(f"p{i}", f"q{i}", None, "w", [0, 5 + i, 6, 7], [0, 5 + i, 8, 7], [0, 5 + i, 9, 7], 0) for i in range(6)]
SAMPLER = LocalSampler(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=8)


@pytest.fixture(scope="module")
def model():
    return small_model()


def sampled(model, first, second):
    return SampledPairs(model, SAMPLER, seed=0, first=first, second=second).predict_step(Shard(0, ROWS), 0)


def test_the_answers_are_those_that_each_side_gives_and_the_plain_one_stands_against_the_positive(model):
    pairs = SelfSteeringPairs(model, SAMPLER, seed=0).predict_step(Shard(0, ROWS), 0)
    contrastive, plain = sampled(model, "positive", "negative"), sampled(model, "plain", "positive")
    assert [pair.id for pair in pairs] == [f"p{i}-{n}" for i in range(6) for n in range(2)]
    for wanted, found in ((contrastive, pairs[0::2]), (plain, pairs[1::2])):
        for one, other in zip(wanted, found, strict=True):
            assert vars(other) == vars(one) | {"id": other.id}


def test_a_prompt_with_two_equal_answers_is_left_out(model):
    """Under equal contexts the noise of two sides still differs; one token at temperature 0 makes answers equal."""
    greedy = LocalSampler(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=8)
    same = [Context("s", "q", None, "w", [0, 5, 6], [0, 5, 6], [0, 5, 6], 0)]
    assert SelfSteeringPairs(model, greedy, seed=0).predict_step(Shard(0, same), 0) == []


def test_the_shards_do_not_matter(model):
    def pairs(index, rows):
        return SelfSteeringPairs(model, SAMPLER, seed=0).predict_step(Shard(index, rows, ROWS), 0)

    assert [pair for i in range(6) for pair in pairs(i, ROWS[i : i + 1])] == pairs(0, ROWS)
