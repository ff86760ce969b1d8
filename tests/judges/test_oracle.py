"""The oracle as judge: its verdicts are the differences of the truths, and ties are as wide as stated."""

import random
from types import SimpleNamespace

import pytest

from dlma.errors import UserError
from dlma.evaluation.lab import LabEvaluation
from dlma.judges.base import Match
from dlma.judges.oracle import OracleJudge
from dlma.lab import oracle, world
from dlma.lab.documents import Dials, answer_text
from dlma.records import Turn

DIALS = Dials(obedience=0.0, spread=0.0, mood=0.8, judge=1.0, confound=0.0, sentences=(1, 3))


def match(question, answer, other):
    return Match("p", None, [Turn("user", question)], "", "aligned", "base", answer, other)


def drawn(n):
    rng = random.Random(1)
    questions = [world.draw_question(rng) for _ in range(n)]
    return [match(q.text, *(answer_text(rng, DIALS, q, 0.0) for _ in range(2))) for q in questions]


@pytest.mark.parametrize("criterion", ["harmless", "helpful"])
def test_without_a_tie_width_the_verdict_is_the_sign_of_the_truth(criterion):
    rows = drawn(200)
    judge = OracleJudge(None, criterion=criterion, tie=0.0)
    words = {1: "win", 0: "tie", -1: "lose"}
    expected = [words[oracle.truth(m.question, m.answer, m.other, criterion=criterion)] for m in rows]
    found = judge.judge(rows)
    assert [r.outcome for r in found] == expected
    assert len(set(expected)) == 3
    assert all(r.first == r.second == r.outcome for r in found)


def test_the_truth_of_a_pair_says_by_how_much_its_positive_answer_is_better():
    """Worths of the lexicon: wash +1/2, hit -1; an answer's is the mean over its sentences."""
    wash, hit = " wash the dog .", " hit the dog ."
    answers = [(wash, wash), (wash, hit), (hit, wash), (wash, wash + hit), (wash + hit, hit), (wash, hit + hit + hit)]
    pairs = [SimpleNamespace(question="", positive_text=a, negative_text=b) for a, b in answers]
    assert LabEvaluation(split="test").truth(pairs) == [0.0, 1.5, -1.5, 0.75, 0.75, 1.5]


def test_a_tie_width_takes_in_what_lies_within_it():
    rows = drawn(200)
    found = {tie: OracleJudge(None, criterion="harmless", tie=tie).judge(rows) for tie in (0.0, 0.5)}
    for strict, wide in zip(found[0.0], found[0.5], strict=True):
        assert wide.outcome == ("tie" if abs(strict.margin) <= 0.5 else strict.outcome)


def test_a_prompt_of_another_world_is_refused():
    with pytest.raises(UserError, match="use data=lab"):
        OracleJudge(None, criterion="harmless", tie=0.0).judge([match("how are you?", "well.", "ill.")])
