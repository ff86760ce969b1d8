"""Sentiment of each answer beside another truth, or none: VADER's compound, as evaluation/sentiment.py reads it."""

from __future__ import annotations

from dlma.evaluation.context import EvaluationContext
from dlma.evaluation.sentiment import compound, lexicon
from dlma.metrics.base import MetricColumn, MetricInput
from dlma.metrics.summary import SENTIMENT
from dlma.records import MetricValue


class Sentiment:
    """The compound of every arm's answers; a mean of them has no meaning beyond this lexicon."""

    columns = (MetricColumn(SENTIMENT.name, SENTIMENT.label, "mean", better="higher"),)

    def __init__(self, bench: EvaluationContext, /) -> None:
        pass

    def identity(self) -> list[str]:
        """The release of the lexicon and its rules."""
        return lexicon()

    def report(self) -> dict:
        """Nothing beyond the configuration."""
        return {}

    def scores(self, scene: MetricInput) -> list[MetricValue]:
        """One compound per answer, of its text alone."""
        return [
            MetricValue(answer.prompt_id, answer.category, arm, SENTIMENT.name, compound(answer.text))
            for arm, answers in scene.answers.items()
            for answer in answers
        ]
