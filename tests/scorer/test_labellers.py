"""Labels by a judge, by a coin and by a simulated annotator; what stands beside them."""

import dataclasses

import pytest
from small_models import byte_level_tokenizer, plain_logp, small_network

from dlma.errors import UserError
from dlma.functional.labels import flip_probability
from dlma.judge_prompt import ABPrompt
from dlma.lab import lexicon, oracle, world
from dlma.model.language import LanguageModel
from dlma.records import Pair
from dlma.scorer.annotator import Annotator
from dlma.scorer.construction import Construction, with_margin
from dlma.scorer.judge import Judge
from dlma.scorer.random_labels import RandomLabels
from dlma.scorer.self_reward import SelfReward
from dlma.trainer.runtime import Shard

QUESTION = world.prompts("train", 1, 0)[0].turns[0].content
GOOD, MILD, BAD = (f" {world.VERBS[value][0]} the {lexicon.OBJECTS[0]} ." for value in (1.0, 0.5, -1.0))
AB = ABPrompt(source="t", template="{question} ( A ) {first} ( B ) {second} :", verdicts=[" A", " B"], instructions=[])


@pytest.fixture(scope="module")
def model():
    tokenizer = byte_level_tokenizer([QUESTION, GOOD, BAD, "( A ) ( B ) :"], 300)
    return LanguageModel(small_network(vocabulary=len(tokenizer)), tokenizer, "small")


def pair(model, first=GOOD, second=BAD, name="p", question=QUESTION):
    def ids(text):
        return model.tokenizer(text, add_special_tokens=False)["input_ids"]

    context = [0, *ids(f"ask : {question}\nreply")]
    return Pair(
        id=name, prompt_id=name, question=question, wording="w",
        plain_context_ids=[*context, *ids(" :")], positive_context_ids=[*context, *ids(" ( A ) :")],
        negative_context_ids=[*context, *ids(" ( B ) :")],
        positive_ids=[*ids(first), 1], negative_ids=[*ids(second), 1], positive_finished=True, negative_finished=True,
        positive_text=first, negative_text=second,
    )  # fmt: skip


def judge(model, **changes):
    return Judge(model, **{**dict(ab=AB, orders="both", margin="verdict", seed=0), **changes})


def random_labels(model, **changes):
    return RandomLabels(model, **{**dict(margin="none", seed=0), **changes})


def annotator(model, **changes):
    return Annotator(model, **{**dict(flips=0.0, criterion="harmless", margin="none", seed=0), **changes})


def verdict(model, first, second):
    text = f"{QUESTION} ( A ) {first.strip()} ( B ) {second.strip()} :"
    ids = [[0, *model.tokenizer(text + v, add_special_tokens=False)["input_ids"]] for v in AB.verdicts]
    logp = [plain_logp(model.network, [0], row[1:]).item() for row in ids]
    return logp[0] - logp[1]


def test_both_orders_are_averaged_and_kept(model):
    (scored,) = judge(model).score([pair(model)])
    shown_first, shown_second = verdict(model, GOOD, BAD), -verdict(model, BAD, GOOD)
    assert scored.verdict_first == pytest.approx(shown_first, abs=1e-3)
    assert scored.verdict_second == pytest.approx(shown_second, abs=1e-3)
    assert scored.margin == pytest.approx((shown_first + shown_second) / 2, abs=1e-3)
    assert scored.chosen == ("positive" if scored.margin > 0 else "negative")


def test_the_judges_label_follows_the_answers_and_not_their_places(model):
    straight, swapped = judge(model).score([pair(model), pair(model, BAD, GOOD)])
    assert swapped.margin == pytest.approx(-straight.margin, abs=1e-5)
    assert {straight.chosen, swapped.chosen} == {"positive", "negative"}


def test_one_order_is_drawn_for_each_pair_and_is_one_of_the_two(model):
    pairs = [pair(model, name=f"p{i}") for i in range(24)]
    both, one = judge(model).score(pairs), judge(model, orders="one").score(pairs)
    shown_first = [row.verdict_first is not None for row in one]
    assert set(shown_first) == {True, False}
    for two, row in zip(both, one, strict=True):
        assert (row.verdict_first is None) != (row.verdict_second is None)
        asked = row.verdict_first if row.verdict_first is not None else row.verdict_second
        assert row.margin == asked
        assert asked in (pytest.approx(two.verdict_first, abs=1e-5), pytest.approx(two.verdict_second, abs=1e-5))


def test_a_tie_of_the_judge_is_decided_by_a_coin_of_the_seed(model):
    twins = [pair(model, GOOD, GOOD, name=f"p{i}") for i in range(40)]
    rows = judge(model).score(twins)
    assert {row.margin for row in rows} == {0.0}
    chosen = [row.chosen for row in rows]
    assert 8 < chosen.count("positive") < 32
    assert chosen == [row.chosen for row in judge(model).score(twins)]
    assert chosen != [row.chosen for row in judge(model, seed=1).score(twins)]


@pytest.mark.parametrize("make", [judge, random_labels, annotator])
def test_the_self_reward_and_the_reference_stand_beside_any_label(model, make):
    pairs = [pair(model), pair(model, BAD, GOOD, name="q")]
    rewarded, constructed = SelfReward(model).score(pairs), Construction(model).score(pairs)
    for kind, known in (("self_reward", rewarded), ("none", constructed)):
        rows = make(model, margin=kind).predict_step(Shard(0, pairs), 0)
        for row, other in zip(rows, known, strict=True):
            assert row.margin == other.margin
            assert row.positive_reference == pytest.approx(other.positive_reference, abs=1e-5)
            assert (row.positive_under_positive is None) == (kind == "none")


def test_random_labels_are_even_fixed_and_blind(model):
    names = [f"p{i}" for i in range(200)]
    labels = {}
    for first, second in ((GOOD, BAD), (BAD, GOOD)):
        rows = random_labels(model).score([pair(model, first, second, name=n) for n in names])
        labels[first] = [row.chosen for row in rows]
    assert labels[GOOD] == labels[BAD]  # the same whatever the answers say
    assert 70 < labels[GOOD].count("positive") < 130
    other = random_labels(model, seed=1).score([pair(model, name=n) for n in names])
    assert labels[GOOD] != [row.chosen for row in other]


def test_without_errors_the_annotator_states_the_truth(model):
    pairs = [pair(model), pair(model, BAD, GOOD), pair(model, MILD, GOOD)]
    truth = [oracle.truth(QUESTION, p.positive_text, p.negative_text) for p in pairs]
    rows = annotator(model).predict_step(Shard(0, pairs), 0)
    assert truth == [1, -1, -1]
    assert [row.chosen for row in rows] == ["positive", "negative", "negative"]
    assert [row.margin for row in rows] == [0.0, 0.0, 0.0]


def mixed(model, n):
    """Pairs of large and of small differences, and ties."""
    kinds = [(GOOD, BAD), (MILD, BAD), (GOOD, MILD), (GOOD, GOOD)]
    return [pair(model, *kinds[i % 4], name=f"p{i}") for i in range(n)]


def test_errors_come_at_the_stated_rate_and_more_often_where_answers_are_close(model):
    pairs = mixed(model, 1200)
    marker = without_model(annotator(model, flips=0.2))
    rows = marker.predict_step(Shard(0, pairs[:600], pairs), 0) + marker.predict_step(Shard(1, pairs[600:], pairs), 1)
    wrong = [row.chosen == "negative" for row in rows]
    untied = [w for i, w in enumerate(wrong) if i % 4 != 3]
    assert sum(untied) / len(untied) == pytest.approx(0.2, abs=0.04)
    by_kind = [sum(wrong[i::4]) / len(wrong[i::4]) for i in range(4)]
    assert by_kind[0] < by_kind[2]
    assert by_kind[3] == pytest.approx(0.5, abs=0.09)
    difference = marker.differences(pairs[:3])
    expected = flip_probability(difference, marker._temperature).tolist()
    assert by_kind[:3] == pytest.approx(expected, abs=0.06)


def without_model(marker):
    """The same labeller with made-up reference log-probs, for what depends on the labels alone."""
    marker.beside.score = lambda pairs: [with_margin(one, -1.0, -2.0, 0.0, "positive") for one in pairs]
    return marker


def test_the_annotators_labels_do_not_depend_on_the_shards(model):
    pairs = mixed(model, 60)

    def labels(size, start=0):
        marker = without_model(annotator(model, flips=0.25))
        parts = [Shard(i, pairs[i : i + size], pairs) for i in range(start, len(pairs), size)]
        return [row.chosen for part in parts for row in marker.predict_step(part, 0)]

    assert labels(60) == labels(7)
    assert labels(60)[30:] == labels(30, start=30)  # a run that resumes at the second shard


def test_the_annotator_refuses_what_is_not_the_labs(model):
    other = dataclasses.replace(pair(model), question="How do I hit someone?")
    with pytest.raises(UserError, match="annotator"):
        annotator(model).predict_step(Shard(0, [other]), 0)
