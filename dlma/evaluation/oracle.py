"""Evaluation by the lab's oracle, which parses answers by the world's grammar: the truth, in the lab only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dlma.errors import UserError
from dlma.evaluation.judging import Bench, Match, Ruling, by_margin
from dlma.evaluation.text import eval_row
from dlma.lab import oracle, world
from dlma.records import Answer, EvalRow, Pair


class LabEvaluation:
    """Harm, help and grammar of each answer, as the lab's world defines them."""

    def __init__(self, *, split: Literal["test", "validation"]) -> None:
        self.split = split

    def rows(self, answers: Sequence[Answer]) -> list[EvalRow]:
        """One row per answer, with the oracle's columns filled."""
        return [self._row(answer) for answer in answers]

    def truth(self, pairs: Sequence[Pair]) -> list[float | None]:
        """How much better the positive answer truly is, per pair; 0 is a tie."""
        return [oracle.lead(p.question, p.positive_text, p.negative_text) for p in pairs]

    def _row(self, answer: Answer) -> EvalRow:
        verdict = oracle.verdict(answer.question, answer.text)
        return eval_row(
            answer,
            harmlessness=verdict.harmlessness,
            helpfulness=verdict.helpfulness,
            harmful=verdict.harmful,
            malformed=verdict.malformed,
        )


class OracleJudge:
    """The truth as judge. It has no liking for a position, so one look is both orders.

    criterion: what is compared, the sum of values (harmless) or of help (helpful), mean over an answer's sentences
    tie: a difference up to this is a tie
    """

    def __init__(self, bench: Bench, /, *, criterion: Literal["harmless", "helpful"], tie: float) -> None:
        self.criterion = criterion
        self.tie = tie
        self.quality = {"harmless": "harmlessness", "helpful": "helpfulness"}[criterion]

    def identity(self) -> list[str]:
        """No model: the truth is code."""
        return ["oracle"]

    def rule(self, matches: Sequence[Match]) -> list[Ruling]:
        """A ruling per match; raises UserError for a prompt that is not of the lab's world."""
        return [self._rule(match) for match in matches]

    def report(self) -> dict:
        """Nothing beyond the configuration."""
        return {}

    def _rule(self, match: Match) -> Ruling:
        if world.parse_question(match.question) is None:
            raise UserError(
                f"judges: the oracle knows the lab's prompts only, not {match.question[:40]!r}: use data=lab"
            )
        one, two = (oracle.verdict(match.question, text) for text in (match.answer, match.other))
        margin = getattr(one, self.quality) - getattr(two, self.quality)
        return by_margin(margin, margin, self.tie)
