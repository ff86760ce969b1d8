"""R token by token sums to R; a token is an echo where its word stands in what the prompts add."""

import dataclasses

import pytest
from small_models import FOUR_SHAPES, plain_logp, small_model

from dlma.records import Pair
from dlma.scorer.self_reward import SelfReward
from dlma.scorer.token_rewards import TokenScorer, affix_words

PAIR = Pair(
    id="p", prompt_id="p", question="q", wording="w",
    plain_context_ids=[0, 5, 6, 7], positive_context_ids=[0, 5, 6, 8, 7], negative_context_ids=[0, 5, 6, 9, 6, 7],
    positive_ids=[10, 8, 6, 1], negative_ids=[9, 13, 5], positive_finished=True, negative_finished=False,
    positive_text="a", negative_text="b",
)  # fmt: skip


@pytest.mark.parametrize("kind", FOUR_SHAPES)
def test_token_rewards_are_those_of_a_plain_loop_and_sum_to_r(kind):
    model = small_model(kind)
    (row,) = TokenScorer(model).score([PAIR])
    for ids, rewards in ((PAIR.positive_ids, row.positive_rewards), (PAIR.negative_ids, row.negative_rewards)):
        each = [
            [plain_logp(model.network, c + ids[:i], ids[i : i + 1]).item() for i in range(len(ids))]
            for c in (PAIR.positive_context_ids, PAIR.negative_context_ids)
        ]
        assert rewards == pytest.approx([a - b for a, b in zip(*each)], abs=1e-4)
    (scored,) = SelfReward(model).score([PAIR])
    assert sum(row.positive_rewards) - sum(row.negative_rewards) == pytest.approx(scored.margin, abs=1e-4)


def test_many_pairs_in_several_passes_keep_their_order():
    model = small_model()
    others = [dataclasses.replace(PAIR, id=str(i), positive_ids=[10 + i, 3, *range(3, 3 + i), 1]) for i in range(9)]
    scorer = TokenScorer(model, token_budget=64)
    together = scorer.score(others)
    for pair, row in zip(others, together, strict=True):
        (alone,) = TokenScorer(model).score([pair])
        assert row.positive_rewards == pytest.approx(alone.positive_rewards, abs=1e-5)
        assert row.negative_rewards == pytest.approx(alone.negative_rewards, abs=1e-5)


def test_echoes_are_the_words_that_either_prompt_adds():
    model = small_model()
    assert affix_words(model.tokenizer, PAIR) == {"w8", "w9", "w6"}  # 6 stands once more than in the plain prompt
    (row,) = TokenScorer(model).score([PAIR])
    assert row.positive_echo == [False, True, True, False]
    assert row.negative_echo == [True, False, False]
    assert row.negative_pieces[0].strip() == "w9"
