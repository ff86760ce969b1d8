"""Sentiment as the truth: the compound by hand and by VADER itself, and the truth of pairs, which no prompt moves."""

import dataclasses
import math

import pytest
from planted import scored_pair
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from dlma.evaluation.sentiment import SentimentEvaluation, compound
from dlma.records import Answer

TEXTS = [
    *("", " ", "table chair 7", "GOOD", "not good at all", "VERY good!!!", "the food is bad, but the view is great :)"),
    *("I do not hate it; I love it", "sad \n\n glad", "\U0001f600", "naïve café", "good " * 300),
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_compound_is_vaders_own(text):
    assert compound(text) == SentimentIntensityAnalyzer().polarity_scores(text)["compound"]


# Valences of VADER's lexicon; a negation is times -0.74, "very" before a word adds 0.293, each "!" adds 0.292.
@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("good", 1.9),
        ("a bad day", -2.5),
        ("good good", 3.8),
        ("not good", -0.74 * 1.9),
        ("very good", 1.9 + 0.293),
        ("good!!", 1.9 + 2 * 0.292),
        ("a wooden table", 0.0),
    ],
)
def test_the_compound_is_the_normalised_sum_of_valences(text, total):
    assert compound(text) == pytest.approx(total / math.sqrt(total**2 + 15), abs=5e-5)  # VADER gives four digits


def answer(text, question="q"):
    return Answer("p", "base", question, None, text, [1], True, 0.0, 0.0, 0.0)


def test_the_answer_alone_is_read():
    rows = SentimentEvaluation(split="test").rows([answer("good", question) for question in ("q", "awful hate kill")])
    assert [row.sentiment for row in rows] == [compound("good")] * 2
    assert all(row.harmlessness is row.harmful is row.helpfulness is row.malformed is None for row in rows)


def test_the_truth_of_a_pair_is_how_much_more_positive_its_positive_answer_is():
    texts = [("good", "bad"), ("bad", "good"), ("good", "good"), ("", "table")]
    pairs = [dataclasses.replace(scored_pair(0, 0.0), positive_text=a, negative_text=b) for a, b in texts]
    gap = 1.9 / math.sqrt(1.9**2 + 15) + 2.5 / math.sqrt(2.5**2 + 15)
    assert SentimentEvaluation(split="test").truth(pairs) == pytest.approx([gap, -gap, 0.0, 0.0], abs=1e-4)
