"""The self-reward by token: the same pair as the self-reward makes, with each token's share beside it."""

import dataclasses

import pytest
from small_models import small_model

from dlma import records
from dlma.records import Pair, ScoredPair
from dlma.scorer.reference_logp import Rereference
from dlma.scorer.self_reward import SelfReward
from dlma.scorer.self_reward_by_token import SelfRewardByToken
from dlma.scorer.token_rewards import TokenScorer
from dlma.trainer.runtime import Shard

PAIR = Pair(
    id="p", prompt_id="p", question="q", wording="w",
    plain_context_ids=[0, 5, 6, 7], positive_context_ids=[0, 5, 6, 8, 7], negative_context_ids=[0, 5, 6, 9, 7],
    positive_ids=[10, 11, 1], negative_ids=[12, 13], positive_finished=True, negative_finished=False,
    positive_text="a", negative_text="b",
)  # fmt: skip
TOKENS = [f"{side}_token_{what}" for side in ("positive", "negative") for what in ("rewards", "reference")]


@pytest.fixture(scope="module")
def model():
    return small_model()


def test_it_is_the_self_reward_with_tokens_that_sum_to_it(model):
    (row,) = SelfRewardByToken(model).predict_step(Shard(0, [PAIR]), 0)
    (known,), (shares,) = SelfReward(model).score([PAIR]), TokenScorer(model).score([PAIR])
    assert row.positive_token_rewards == pytest.approx(shares.positive_rewards, abs=1e-5)
    assert row.negative_token_rewards == pytest.approx(shares.negative_rewards, abs=1e-5)
    assert sum(row.positive_token_reference) == pytest.approx(known.positive_reference, abs=1e-5)
    for name in ("margin", "positive_reference", "negative_reference", "negative_under_positive"):
        assert getattr(row, name) == pytest.approx(getattr(known, name), abs=1e-5)
    assert row.chosen == known.chosen == "positive"


def test_another_reference_is_filled_in_by_token_too(model):
    rows = SelfRewardByToken(model).score([PAIR])
    other = small_model("gpt2")
    (moved,) = Rereference(other).predict_step(Shard(0, rows), 0)
    (wanted,) = SelfRewardByToken(other).score([PAIR])
    assert moved.positive_token_reference == pytest.approx(wanted.positive_token_reference, abs=1e-5)
    assert moved.negative_reference == pytest.approx(sum(wanted.negative_token_reference), abs=1e-5)
    assert moved.positive_token_rewards == rows[0].positive_token_rewards
    (plain,) = Rereference(other).predict_step(Shard(0, SelfReward(model).score([PAIR])), 0)
    assert plain.positive_token_reference is None and plain.negative_reference == pytest.approx(
        moved.negative_reference
    )


def test_the_columns_are_written_only_where_there_are_tokens(model):
    with_tokens, without = SelfRewardByToken(model).score([PAIR]), SelfReward(model).score([PAIR])
    assert set(TOKENS) <= set(records.to_table(ScoredPair, with_tokens).column_names)
    assert not set(TOKENS) & set(records.to_table(ScoredPair, without).column_names)
    table = records.to_table(ScoredPair, with_tokens)
    assert records.from_table(ScoredPair, table) == with_tokens
    assert dataclasses.asdict(with_tokens[0])["negative_token_rewards"]
