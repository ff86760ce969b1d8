"""The scorer: the paper's R from the contexts that made the pair, EOS as trained on, by hand from a plain loop."""

import dataclasses

import pytest
from small_models import FOUR_SHAPES, plain_logp, small_model

from dlma.records import Label, Pair
from dlma.scorer.construction import Construction, GivenMargins
from dlma.scorer.self_reward import SelfReward
from dlma.trainer.runtime import Shard

PAIR = Pair(
    id="p", prompt_id="p", question="q", wording="w",
    plain_context_ids=[0, 5, 6, 7], positive_context_ids=[0, 5, 6, 8, 7], negative_context_ids=[0, 5, 6, 9, 7],
    positive_ids=[10, 11, 1], negative_ids=[12, 13], positive_finished=True, negative_finished=False,
    positive_text="a", negative_text="b",
)  # fmt: skip


def by_hand(network, pair):
    def logp(context, answer):
        return plain_logp(network, context, answer).item()

    positive, negative = pair.positive_context_ids, pair.negative_context_ids
    return (logp(positive, pair.positive_ids) - logp(negative, pair.positive_ids)) - (
        logp(positive, pair.negative_ids) - logp(negative, pair.negative_ids)
    )


def swapped_answers(pair):
    return dataclasses.replace(pair, positive_ids=pair.negative_ids, negative_ids=pair.positive_ids)


def swapped_prompts(pair):
    positive, negative = pair.negative_context_ids, pair.positive_context_ids
    return dataclasses.replace(pair, positive_context_ids=positive, negative_context_ids=negative)


@pytest.mark.parametrize("kind", FOUR_SHAPES)
def test_the_margin_is_the_papers_r(kind):
    model = small_model(kind)
    (scored,) = SelfReward(model).score([PAIR])
    assert scored.margin == pytest.approx(by_hand(model.network, PAIR), abs=1e-4)
    assert scored.positive_reference == pytest.approx(
        plain_logp(model.network, PAIR.plain_context_ids, PAIR.positive_ids).item(), abs=1e-4
    )


def test_swapping_answers_or_prompts_changes_the_sign():
    scorer = SelfReward(small_model())
    margin = scorer.score([PAIR])[0].margin
    assert abs(margin) > 0.1
    assert scorer.score([swapped_answers(PAIR)])[0].margin == pytest.approx(-margin, abs=1e-5)
    assert scorer.score([swapped_prompts(PAIR)])[0].margin == pytest.approx(-margin, abs=1e-5)


def test_identical_prompts_give_a_margin_of_exactly_zero():
    pair = dataclasses.replace(PAIR, negative_context_ids=PAIR.positive_context_ids)
    assert SelfReward(small_model()).score([pair])[0].margin == 0


def test_the_label_follows_construction_whatever_the_sign_of_r():
    scorer = SelfReward(small_model())
    signs = [(s.margin > 0, s.chosen) for s in scorer.score([PAIR, swapped_answers(PAIR)])]
    assert sorted(signs) == [(False, "positive"), (True, "positive")]


def test_a_produced_eos_is_counted_and_a_missing_one_is_not():
    """log pi(a, EOS) = log pi(a) + log pi(EOS | a): the finished answer's reference is smaller by that much."""
    model = small_model()
    cut = dataclasses.replace(PAIR, positive_ids=PAIR.positive_ids[:-1], positive_finished=False)
    whole, without = (SelfReward(model).score([p])[0].positive_reference for p in (PAIR, cut))
    context = [*PAIR.plain_context_ids, *PAIR.positive_ids[:-1]]
    assert whole - without == pytest.approx(plain_logp(model.network, context, [1]).item(), abs=1e-4)


def test_construction_has_no_margin_and_the_same_reference():
    model = small_model()
    (scored,) = Construction(model).predict_step(Shard(0, [PAIR]), 0)
    (rewarded,) = SelfReward(model).score([PAIR])
    assert (scored.margin, scored.chosen) == (0.0, "positive")
    assert scored.negative_reference == pytest.approx(rewarded.negative_reference, abs=1e-5)


def test_given_margins_and_labels_are_kept():
    module = GivenMargins(small_model(), [Label("p", -1.25, "negative")])
    (scored,) = module.predict_step(Shard(0, [PAIR]), 0)
    assert (scored.margin, scored.chosen) == (-1.25, "negative")
