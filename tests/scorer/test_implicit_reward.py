"""The implicit reward as a scorer: each answer's gain over the base, by a plain loop."""

import dataclasses

import pytest
from scored_examples import scored_pairs
from small_models import plain_logp, small_model

from dlma.records import Pair
from dlma.scorer.implicit_reward import ImplicitScorer
from dlma.trainer.runtime import Shard


@pytest.fixture(scope="module")
def models():
    return small_model("qwen2"), small_model()


def pairs(base):
    names = [field.name for field in dataclasses.fields(Pair)]
    return [Pair(**{name: getattr(row, name) for name in names}) for row in scored_pairs(base, n=4)]


def test_a_score_is_how_much_likelier_the_policy_has_made_an_answer(models):
    policy, base = models
    rows = ImplicitScorer(policy, base, beta=0.3, seed=0).predict_step(Shard(0, pairs(base)), 0)
    for row in rows:
        gains = [
            0.3
            * (
                plain_logp(policy.network, row.plain_context_ids, ids)
                - plain_logp(base.network, row.plain_context_ids, ids)
            ).item()
            for ids in (row.positive_ids, row.negative_ids)
        ]
        assert [row.positive_score, row.negative_score] == pytest.approx(gains, abs=1e-4)
        assert row.margin == pytest.approx(gains[0] - gains[1], abs=1e-4)
        assert row.chosen == ("positive" if row.margin > 0 else "negative")
        reference = plain_logp(policy.network, row.plain_context_ids, row.positive_ids).item()
        assert row.positive_reference == pytest.approx(reference, abs=1e-4)  # the round's own policy is the reference
    assert {row.chosen for row in rows} == {"positive", "negative"}


def test_the_base_itself_has_no_implicit_reward(models):
    _, base = models
    rows = ImplicitScorer(base, base, beta=0.3, seed=0).predict_step(Shard(0, pairs(base)), 0)
    assert {(row.positive_score, row.negative_score, row.margin) for row in rows} == {(0.0, 0.0, 0.0)}
