"""Text quality without a model: how much answers repeat each other and themselves, and refusals of safe prompts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from dlma.evaluation.context import EvaluationContext
from dlma.metrics.base import MetricColumn, MetricInput
from dlma.metrics.refusals import refuses, reliability
from dlma.records import Answer, MetricValue

ORDER = 4  # BLEU-4
EPSILON = 0.1  # of a count of 0: method 1 of Chen and Cherry (2014), nltk's SmoothingFunction().method1

Grams = Counter[tuple[str, ...]]


class TextQuality:
    """Words are what white space separates.

    refusals: phrases, in lower case; an answer that holds one refuses
    safe_categories: on prompts of these a refusal is a fault
    """

    columns: tuple[MetricColumn, ...] = (
        MetricColumn("self_bleu", "self-BLEU-4 among the answers", "mean", better="lower"),
        MetricColumn("distinct_1_all", "distinct words over all answers", "mean", "share", "higher"),
        MetricColumn("distinct_2_all", "distinct word pairs over all answers", "mean", "share", "higher"),
        MetricColumn("repeated_4", "repeated 4-word runs in an answer", "share", "share", "lower"),
    )

    def __init__(self, bench: EvaluationContext, /, *, refusals: list[str], safe_categories: list[str]) -> None:
        self.refusals = refusals
        refused = f"refusals of safe prompts ({reliability(refusals)})"
        self.columns = (*self.columns, MetricColumn("refused_safe", refused, "share", "share", "lower"))
        self.safe_categories = safe_categories

    def identity(self) -> list[str]:
        """No model."""
        return []

    def report(self) -> dict:
        """Nothing beyond the configuration."""
        return {}

    def scores(self, scene: MetricInput) -> list[MetricValue]:
        """The scores of every arm's answers; those over all answers have one item, and so no interval."""
        return [score for arm, answers in scene.answers.items() for score in self._arm(arm, answers)]

    def _arm(self, arm: str, answers: Sequence[Answer]) -> Iterator[MetricValue]:
        words = [answer.text.split() for answer in answers]
        for answer, bleu in zip(answers, self_bleu(words)):  # none for a single answer
            yield MetricValue(answer.prompt_id, answer.category, arm, "self_bleu", bleu)
        for n in (1, 2):
            share = distinct(words, n)
            if share is not None:
                yield MetricValue("all answers", None, arm, f"distinct_{n}_all", share)
        for answer, text in zip(answers, words, strict=True):
            share = distinct([text], 4)
            if share is not None:
                yield MetricValue(answer.prompt_id, answer.category, arm, "repeated_4", 1 - share)
            if answer.category in self.safe_categories:
                refused = float(refuses(answer.text, self.refusals))
                yield MetricValue(answer.prompt_id, answer.category, arm, "refused_safe", refused)


def grams(words: Sequence[str], n: int) -> Grams:
    """The runs of n words, counted."""
    return Counter(zip(*(words[i:] for i in range(n))))


def distinct(texts: Sequence[Sequence[str]], n: int) -> float | None:
    """Different runs of n words over all runs of n words; None where there is none (distinct-n, Li et al. 2016)."""
    counts = sum((grams(words, n) for words in texts), Counter())
    return len(counts) / counts.total() if counts else None


def self_bleu(texts: Sequence[Sequence[str]]) -> list[float]:
    """BLEU-4 of every text with all others as references, smoothed by EPSILON (Zhu et al. 2018); empty for one text.

    A run's count is clipped at its largest count in one reference: the largest two over all texts tell that for each.
    """
    if len(texts) < 2:
        return []
    counted = [[grams(words, n) for words in texts] for n in range(1, ORDER + 1)]
    largest = [_two_largest(of_n) for of_n in counted]
    lengths = Counter(len(words) for words in texts)
    return [
        _bleu([of_n[i] for of_n in counted], largest, len(words), _closest(lengths, len(words)))
        for i, words in enumerate(texts)
    ]


def _two_largest(counted: Sequence[Grams]) -> dict[tuple[str, ...], tuple[int, int]]:
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    for counts in counted:
        for gram, count in counts.items():
            first, second = found.get(gram, (0, 0))
            found[gram] = (count, first) if count > first else (first, max(second, count))
    return found


def _closest(lengths: Counter[int], own: int) -> int:
    """The length of another text that is nearest to a text's own; of two as near the shorter."""
    others = (length for length, count in lengths.items() if length != own or count > 1)
    return min(others, key=lambda length: (abs(length - own), length))


def _bleu(counts: Sequence[Grams], largest: Sequence[dict], length: int, reference: int) -> float:
    """Geometric mean of the clipped precisions, times the brevity penalty; 0 where no word is shared."""
    logs = 0.0
    for n, (own, top) in enumerate(zip(counts, largest, strict=True), start=1):
        hits = sum(min(count, top[gram][1] if count == top[gram][0] else top[gram][0]) for gram, count in own.items())
        if n == 1 and hits == 0:
            return 0.0
        logs += math.log((hits or EPSILON) / max(1, own.total())) / ORDER
    penalty = 1.0 if length > reference else math.exp(1 - reference / length)
    return penalty * math.exp(logs)
