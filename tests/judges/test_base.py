"""Pairwise rulings: a position bias cancels, words combine as stated, prompts that both arms answered are compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlma.judges.base import Match, by_margin, by_words, contests, matches, swapped, verdicts
from dlma.records import Answer, Context, Prompt, Turn

W, T, L, U = "win", "tie", "lose", "unparsed"
halves = st.integers(-80, 80).map(lambda n: n / 8)  # sums of these are exact


@given(margin=halves, bias=halves, tie=st.sampled_from([0.0, 0.5]))
def test_an_additive_position_bias_cancels(margin, bias, tie):
    assert by_margin(margin + bias, margin - bias, tie).outcome == by_margin(margin, margin, tie).outcome


@pytest.mark.parametrize(
    ("margin", "tie", "outcome"),
    [
        (0.3, 0.0, W),
        (-0.3, 0.0, L),
        (0.0, 0.0, T),
        (0.5, 0.5, T),
        (-0.5, 0.5, T),
        (0.51, 0.5, W),
        (0.1 * 3 - 0.3, 0.0, T),
    ],
)
def test_a_margin_up_to_the_tie_width_is_a_tie(margin, tie, outcome):
    ruling = by_margin(margin, margin, tie)
    assert (ruling.first, ruling.second, ruling.outcome) == (outcome, outcome, outcome)


# win in both orders or a win and a tie wins; a win and a loss, or two ties, tie; one unparsed order spoils the match
TABLE = {
    (W, W): W, (W, T): W, (T, W): W, (W, L): T, (L, W): T, (T, T): T, (T, L): L, (L, T): L, (L, L): L,
    (U, W): U, (U, T): U, (U, L): U, (W, U): U, (T, U): U, (L, U): U, (U, U): U,
}  # fmt: skip


@pytest.mark.parametrize(("words", "outcome"), TABLE.items())
def test_words_of_two_orders(words, outcome):
    assert by_words(*words).outcome == outcome
    assert by_words(*map(swapped, words)).outcome == swapped(outcome)


def test_what_the_method_made_is_compared_with_every_other_arm():
    assert contests(["base", "prompted", "aligned"]) == [("aligned", "base"), ("aligned", "prompted")]
    assert contests(["base", "prompted"]) == []


def answer(prompt, arm):
    return Answer(prompt, arm, "q", None, f"{arm} on {prompt}", [1], True, 0.0, 0.0, 0.0)


class Letters:
    def decode(self, ids, skip_special_tokens):
        return "".join(chr(96 + i) for i in ids)


def test_matches_are_of_the_prompts_that_both_arms_answered_without_the_turns_that_did_not_fit():
    turns = [Turn("user", "one"), Turn("assistant", "two"), Turn("user", "three")]
    prompts = [Prompt(name, turns, "test", "cats") for name in "abc"]
    contexts = [
        Context(name, "three", "cats", "w", [1, 2], [1], [2], dropped_turns=2 if name == "a" else 0) for name in "abc"
    ]
    answers = {arm: [answer(p, arm) for p in only] for arm, only in (("base", "ab"), ("aligned", "ac"))}
    (found,) = matches(prompts, contexts, answers, Letters())
    assert found == Match("a", "cats", turns[2:], "ab", "aligned", "base", "aligned on a", "base on a")
    assert found.question == "three"


class Always:
    """A judge that prefers whatever stands first, or second."""

    criterion = "position"

    def __init__(self, first):
        self.first = first

    def judge(self, rows):
        one, two = (W, L) if self.first else (L, W)
        return [by_words(one, two) for _ in rows]


@pytest.mark.parametrize("first", [True, False])
def test_a_judge_that_looks_at_the_position_alone_only_ties(first):
    rows = [Match(str(i), None, [Turn("user", "q")], "q", "aligned", "base", "x", "y") for i in range(5)]
    found = verdicts("always", Always(first), rows)
    assert [(v.judge, v.prompt_id, v.outcome) for v in found] == [("always", str(i), T) for i in range(5)]
    assert all(v.shown_first != v.shown_second for v in found)
