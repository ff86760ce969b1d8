"""Prompt pairs side by side: measures of a sample of each one's answers, and their ranking.

The ranking uses no truth. Where one is known it says how far to trust the ranking.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlma.checks.alerts import Alerts, similarity
from dlma.checks.margin_facts import four_logps, margin_facts, spearman
from dlma.metrics.summary import distinct_bigrams
from dlma.records import ScoredPair
from dlma.statistics.intervals import Estimate, mean_interval, share_interval

Measures = dict[str, Estimate | None]

# name: (what it says, unit)
MEASURES = {
    "separation": ("mean of R: how far the two sides pull the model apart", "nats"),
    "spread": ("standard deviation of R", "nats"),
    "clarity": ("mean R over its standard deviation", ""),
    "kl_positive": ("KL of the positive side from the negative, per answer", "nats"),
    "kl_negative": ("KL of the negative side from the positive, per answer", "nats"),
    "difference": ("adjacent token pairs that a pair's two answers do not share", "share"),
    "distinct_2": ("distinct word pairs in an answer", "share"),
    "refusal_positive": ("refusals under the positive side", "share"),
    "refusal_negative": ("refusals under the negative side", "share"),
    "longer": ("positive answer longer by", "tokens"),
    "length_bias": ("rank correlation of R with the difference in length", ""),
    "accuracy": ("sign(R) names the better answer, no ties", "share"),
    "construction": ("the positive answer is the better one, no ties", "share"),
    "rank_correlation": ("rank correlation of R with the truth", ""),
}


@dataclass(frozen=True)
class MeasuredPair:
    """A prompt pair and its measures; `gap` is its true strength where the wording is of the lab's grammar."""

    name: str
    positive: str
    negative: str
    measures: Measures
    gap: float | None = None


def measures(pairs: Sequence[ScoredPair], truth: Sequence[float | None], alerts: Alerts) -> Measures:
    """All of MEASURES on pairs scored by self-reward; None where there is no truth, or nothing to correlate."""
    margins = np.array([pair.margin for pair in pairs])
    longer = [len(pair.positive_ids) - len(pair.negative_ids) for pair in pairs]
    facts = margin_facts(margins.tolist(), truth, None, None)
    four = four_logps(pairs)
    assert four is not None
    texts = [text for pair in pairs for text in (pair.positive_text, pair.negative_text)]
    distinct = [value for value in map(distinct_bigrams, texts) if value is not None]
    return {
        "separation": facts.mean,
        "spread": spread(margins),
        "clarity": clarity(margins),
        "kl_positive": mean_interval([positive - negative for positive, negative, _, _ in four]),
        "kl_negative": mean_interval([negative - positive for _, _, positive, negative in four]),
        "difference": mean_interval([1 - similarity(p.positive_ids, p.negative_ids) for p in pairs]),
        "distinct_2": mean_interval(distinct) if distinct else None,
        "refusal_positive": share_interval([alerts.refuses(p.positive_text) for p in pairs]),
        "refusal_negative": share_interval([alerts.refuses(p.negative_text) for p in pairs]),
        "longer": mean_interval(longer),
        "length_bias": spearman(list(zip(margins.tolist(), longer))),
        "accuracy": facts.sign_accuracy,
        "construction": facts.construction_accuracy,
        "rank_correlation": facts.spearman,
    }


def spread(values: np.ndarray) -> Estimate:
    """The standard deviation, with the square roots of the variance's t interval."""
    square = mean_interval((values - values.mean()) ** 2 * len(values) / max(1, len(values) - 1))
    value, low, high = (math.sqrt(max(0.0, one)) for one in (square.value, square.low, square.high))
    return replace(square, value=value, low=low, high=high)


def clarity(values: np.ndarray) -> Estimate | None:
    """Mean over standard deviation, with the delta method's t interval; None where all values are equal."""
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    if sd == 0:
        return None
    gap = values - mean
    noise = mean_interval(gap / sd - mean * (gap**2 - (gap**2).mean()) / (2 * sd**3))
    return Estimate(mean / sd, mean / sd + noise.low, mean / sd + noise.high, noise.n)


def agreement(entries: Sequence[MeasuredPair], by: str) -> Estimate | None:
    """Spearman's rho over the pairs of a measure and the true strength; None where fewer than four are known."""
    return spearman([(found.value, entry.gap) for entry, found in measured(entries, by) if entry.gap is not None])


def measured(entries: Sequence[MeasuredPair], by: str) -> list[tuple[MeasuredPair, Estimate]]:
    """Those that have a value of a measure, each with it."""
    return [(entry, found) for entry in entries if (found := entry.measures[by]) is not None]


def ranked(entries: Sequence[MeasuredPair], by: str) -> list[MeasuredPair]:
    """The highest value of a measure first, entries without one last."""
    known = sorted(measured(entries, by), key=lambda one: -one[1].value)
    return [entry for entry, _ in known] + [entry for entry in entries if entry.measures[by] is None]
