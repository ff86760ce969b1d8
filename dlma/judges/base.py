"""Pairwise judging: which of two arms' answers to a prompt is better, asked with each of them shown first.

A judge is any object with `criterion` (a word for people), `identity()` (what decides its verdicts beyond its
configuration: fingerprints of weights, a model's name), `judge(matches)`, one ruling per match in order, and
`report()`, what the manifest is to keep of its work. Where
`identity()` shares a fingerprint with the run's own model, which samples, scores and labels, its verdicts are
self-reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dlma.records import POINTS, Answer, Context, Prompt, Turn, Verdict

if TYPE_CHECKING:
    pass

WIN, TIE, LOSE, UNPARSED = "win", "tie", "lose", "unparsed"
_TINY = 1e-9  # sums of equal parts in another order


@dataclass(frozen=True)
class Match:
    """An arm's answer and another arm's to one prompt; `conversation` is the plain context as text."""

    prompt_id: str
    category: str | None
    turns: Sequence[Turn]
    conversation: str
    arm: str
    against: str
    answer: str
    other: str

    @property
    def question(self) -> str:
        return self.turns[-1].content


@dataclass(frozen=True)
class Judgement:
    """A verdict on the arm's answer shown first, shown second, and what follows from both."""

    first: str
    second: str
    outcome: str
    margin: float | None = None


class PairwiseJudge(Protocol):
    criterion: str

    def identity(self) -> list[str]: ...

    def judge(self, matches: Sequence[Match]) -> list[Judgement]: ...

    def report(self) -> dict: ...


def by_margin(first: float, second: float, tie: float) -> Judgement:
    """A ruling from margins for the arm's answer in both orders.

    The outcome follows their mean, in which an additive liking for a position cancels; up to `tie` it is a tie.
    """
    mean = (first + second) / 2
    return Judgement(_word(first, tie), _word(second, tie), _word(mean, tie), mean)


def _word(margin: float, tie: float) -> str:
    return TIE if abs(margin) <= tie + _TINY else WIN if margin > 0 else LOSE


def by_words(first: str, second: str) -> Judgement:
    """A ruling from the words of both orders: win is 1, tie 1/2, lose 0; a sum above 1 wins, 1 ties, below loses.

    So a judge that always prefers a position ties. One order that could not be parsed leaves the match unparsed.
    """
    if UNPARSED in (first, second):
        return Judgement(first, second, UNPARSED)
    points = POINTS[first] + POINTS[second]
    return Judgement(first, second, WIN if points > 1 else LOSE if points < 1 else TIE)


def swapped(word: str) -> str:
    """The verdict for the other answer."""
    return {WIN: LOSE, LOSE: WIN}.get(word, word)


def contests(arms: Sequence[str]) -> list[tuple[str, str]]:
    """Which arms are compared: what the method made, against each of the others."""
    return [("aligned", other) for other in arms if other != "aligned"] if "aligned" in arms else []


def matches(
    prompts: Sequence[Prompt], contexts: Sequence[Context], answers: Mapping[str, Sequence[Answer]], tokenizer
) -> list[Match]:
    """Every contest on every prompt that both arms answered, in the order of the contexts."""
    turns = {prompt.id: prompt.turns for prompt in prompts}
    by_arm = {arm: {row.prompt_id: row for row in rows} for arm, rows in answers.items()}
    plain = [tokenizer.decode(row.plain_ids, skip_special_tokens=True) for row in contexts]
    return [
        Match(
            prompt_id=row.prompt_id,
            category=row.category,
            turns=turns[row.prompt_id][row.dropped_turns :],
            conversation=text,
            arm=arm,
            against=against,
            answer=by_arm[arm][row.prompt_id].text,
            other=by_arm[against][row.prompt_id].text,
        )
        for arm, against in contests(list(answers))
        for row, text in zip(contexts, plain, strict=True)
        if row.prompt_id in by_arm[arm] and row.prompt_id in by_arm[against]
    ]


def verdicts(name: str, judge: PairwiseJudge, rows: Sequence[Match]) -> list[Verdict]:
    """The judge's rulings as records, under the judge's name in the config."""
    return [
        Verdict(
            prompt_id=row.prompt_id,
            category=row.category,
            judge=name,
            arm=row.arm,
            against=row.against,
            shown_first=ruling.first,
            shown_second=ruling.second,
            outcome=ruling.outcome,
            margin=ruling.margin,
        )
        for row, ruling in zip(rows, judge.judge(rows), strict=True)
    ]
