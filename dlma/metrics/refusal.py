"""Refusals in all answers, by the classifier of refusal_classifier.py: its probability, and the share that refuses."""

from __future__ import annotations

from dlma.evaluation.context import EvaluationContext
from dlma.metrics.base import MetricColumn, MetricInput
from dlma.metrics.refusal_classifier import WEIGHTS, reliability, shipped
from dlma.ranges import PositiveShare
from dlma.records import MetricValue


class Refusal:
    """The probability that an answer refuses its prompt's last turn, wholly or in part; in English.

    threshold: from which probability on an answer counts as a refusal
    """

    def __init__(self, bench: EvaluationContext, /, *, threshold: PositiveShare) -> None:
        self.threshold = threshold
        self.columns = (
            MetricColumn("refusal", "probability of a refusal (by a classifier), mean", "mean"),
            MetricColumn("refused", f"refused answers ({reliability()})", "share", "share"),
        )

    def identity(self) -> list[str]:
        """The digest of the weights."""
        from importlib import resources

        from dlma.files import sha256_bytes

        return [sha256_bytes(resources.files("dlma.metrics").joinpath(WEIGHTS).read_bytes())]

    def report(self) -> dict:
        """Nothing beyond the configuration."""
        return {}

    def scores(self, scene: MetricInput) -> list[MetricValue]:
        """Two values per answer."""
        found = []
        for arm, answers in scene.answers.items():
            for answer in answers:
                probability = shipped().probability(answer.text, answer.question)
                for name, value in (("refusal", probability), ("refused", float(probability >= self.threshold))):
                    found.append(MetricValue(answer.prompt_id, answer.category, arm, name, value))
        return found
