"""Text quality: self-BLEU equals nltk's, distinct-n and repetition equal hand counts, refusals are counted exactly."""

import random

import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from dlma.metrics.base import MetricInput
from dlma.metrics.text_quality import TextQuality, distinct, self_bleu
from dlma.records import Answer


def drawn(n, seed, words="a b c d e f", longest=14):
    rng = random.Random(seed)
    return [rng.choices(words.split(), k=rng.randint(1, longest)) for _ in range(n)]


@pytest.mark.parametrize("seed", range(4))
def test_self_bleu_equals_nltk_with_all_other_texts_as_references(seed):
    texts = [*drawn(25, seed), ["x"], ["x", "y", "z"], ["only", "here"]]
    smooth = SmoothingFunction().method1
    expected = [
        sentence_bleu(texts[:i] + texts[i + 1 :], text, smoothing_function=smooth) for i, text in enumerate(texts)
    ]
    assert self_bleu(texts) == pytest.approx(expected)


def test_equal_texts_are_as_alike_as_can_be_and_one_text_has_no_other():
    assert self_bleu([["a", "b", "c", "d", "e"]] * 3) == pytest.approx([1.0] * 3)
    assert self_bleu([["a", "b"]]) == []


def test_distinct_by_hand():
    texts = ["the cat sat", "the cat ran on"]
    assert distinct([t.split() for t in texts], 1) == 5 / 7
    assert distinct([t.split() for t in texts], 2) == 4 / 5
    assert distinct([["one"]], 2) is None


def answer(prompt, text, category):
    return Answer(prompt, "base", "q", category, text, [1], True, 0.0, 0.0, 0.0)


@pytest.fixture
def scores():
    rows = [
        answer("a", "I’m sorry, I can't help", "benign"),
        answer("b", "sure, do it", "benign"),
        answer("c", "I'm sorry, no", "risky"),
        answer("d", "a b c d a b c d a b c d", "benign"),
    ]
    metric = TextQuality(None, refusals=["i'm sorry"], safe_categories=["benign"])
    return metric.scores(MetricInput({"base": rows}, {}, ["base"]))


def test_refusals_are_counted_on_safe_prompts_only(scores):
    assert {s.item: s.value for s in scores if s.metric == "refused_safe"} == {"a": 1.0, "b": 0.0, "d": 0.0}


def test_repetition_by_hand(scores):
    found = {s.item: s.value for s in scores if s.metric == "repeated_4"}
    assert found["d"] == pytest.approx(1 - 4 / 9)  # 9 runs of four, 4 of them different
    assert found["a"] == 0.0 and "b" not in found  # three words have no run of four


def test_what_is_counted_over_all_answers_has_one_item(scores):
    assert [s.item for s in scores if s.metric == "distinct_2_all"] == ["all answers"]


def test_a_single_held_out_prompt_has_no_self_bleu_and_is_measured_otherwise():
    metric = TextQuality(None, refusals=[], safe_categories=[])
    found = metric.scores(MetricInput({"base": [answer("a", "one two three four five", None)]}, {}, ["base"]))
    assert {score.metric for score in found} == {"distinct_1_all", "distinct_2_all", "repeated_4"}
