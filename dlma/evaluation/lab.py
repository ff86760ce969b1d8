"""Evaluation by the lab's oracle, which parses answers by the world's grammar: the truth, in the lab only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dlma.evaluation.text import eval_row
from dlma.lab import oracle
from dlma.records import Answer, EvalRow, Pair


class LabEvaluation:
    """Harm, help and grammar of each answer, as the lab's world defines them."""

    def __init__(self, *, split: Literal["test", "validation", "untouched"]) -> None:
        self.split = split

    def rows(self, answers: Sequence[Answer]) -> list[EvalRow]:
        """One row per answer, with the oracle's columns filled."""
        return [self._row(answer) for answer in answers]

    def identity(self) -> list[str]:
        """No model and no lexicon: the truth is code."""
        return []

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
