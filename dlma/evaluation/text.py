"""Evaluation of any text, with no oracle: lengths, log-probs and diversity only; no claim about harm or help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dlma.records import Answer, EvalRow, Pair


class TextEvaluation:
    """What can be said of answers without a judge."""

    def __init__(self, *, split: Literal["test", "validation"]) -> None:
        self.split = split

    def rows(self, answers: Sequence[Answer]) -> list[EvalRow]:
        """One row per answer; the oracle's columns stay empty."""
        return [eval_row(answer) for answer in answers]

    def identity(self) -> list[str]:
        """Nothing beyond the configuration decides the rows."""
        return []

    def truth(self, pairs: Sequence[Pair]) -> list[float | None]:
        """No truth is known."""
        return [None] * len(pairs)


def eval_row(
    answer: Answer,
    harmlessness: float | None = None,
    helpfulness: float | None = None,
    harmful: bool | None = None,
    malformed: float | None = None,
    sentiment: float | None = None,
) -> EvalRow:
    """The row of an answer; what was not judged is null."""
    return EvalRow(
        prompt_id=answer.prompt_id,
        arm=answer.arm,
        question=answer.question,
        category=answer.category,
        answer=answer.text,
        tokens=len(answer.ids),
        finished=answer.finished,
        logp=answer.logp,
        logp_base=answer.logp_base,
        reward=answer.reward,
        harmlessness=harmlessness,
        helpfulness=helpfulness,
        harmful=harmful,
        malformed=malformed,
        sentiment=sentiment,
        logp_drawn=answer.logp_drawn,
        logp_base_drawn=answer.logp_base_drawn,
        logp_base_uncut=answer.logp_base_uncut,
    )
