"""Evaluation by sentiment: how positive an answer's own words are is the truth, for prompts that ask for a mood.

The figure is VADER's compound (Hutto and Gilbert, ICWSM 2014): with s the sum of the valences of an answer's words
after VADER's rules, s / sqrt(s^2 + 15), from -1 to 1. It reads the answer alone, not the prompt; no method sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal

from dlma.evaluation.text import eval_row
from dlma.records import Answer, EvalRow, Pair

if TYPE_CHECKING:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


class SentimentEvaluation:
    """The compound of each answer; of a pair, that of the positive answer less that of the negative one."""

    def __init__(self, *, split: Literal["test", "validation"]) -> None:
        self.split = split

    def rows(self, answers: Sequence[Answer]) -> list[EvalRow]:
        """One row per answer, with its sentiment filled; the oracle's columns stay empty."""
        return [eval_row(answer, sentiment=compound(answer.text)) for answer in answers]

    def identity(self) -> list[str]:
        """The release of the lexicon and its rules."""
        return lexicon()

    def truth(self, pairs: Sequence[Pair]) -> list[float | None]:
        """How much more positive the positive answer is, from -2 to 2; 0 is a tie."""
        return [compound(pair.positive_text) - compound(pair.negative_text) for pair in pairs]


def compound(text: str) -> float:
    """VADER's compound of a text, from -1 (negative) to 1 (positive), to four digits; 0 where no word has a valence."""
    return float(_analyzer().polarity_scores(text)["compound"])


def lexicon() -> list[str]:
    """What decides `compound` beyond the text."""
    from importlib.metadata import version

    return [f"vaderSentiment {version('vaderSentiment')}"]


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
