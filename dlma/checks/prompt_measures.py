"""Prompt pairs side by side: measures of a sample of each one's answers, and their ranking.

The ranking uses no truth. Where one is known it says how far to trust the ranking.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlma.checks.alerts import Alerts, similarity
from dlma.checks.margin_facts import margin_facts, spearman
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

    def mean(value: Callable[[ScoredPair], float]) -> Estimate:
        return mean_interval([value(pair) for pair in pairs])

    texts = [text for pair in pairs for text in (pair.positive_text, pair.negative_text)]
    distinct = [value for value in map(distinct_bigrams, texts) if value is not None]
    return {
        "separation": facts.mean,
        "spread": spread(margins),
        "clarity": clarity(margins),
        "kl_positive": mean(lambda p: p.positive_under_positive - p.positive_under_negative),
        "kl_negative": mean(lambda p: p.negative_under_negative - p.negative_under_positive),
        "difference": mean(lambda p: 1 - similarity(p.positive_ids, p.negative_ids)),
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
    return replace(square, **{name: math.sqrt(max(0.0, getattr(square, name))) for name in ("value", "low", "high")})


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
    return spearman([(entry.measures[by].value, entry.gap) for entry in measured(entries, by) if entry.gap is not None])


def measured(entries: Sequence[MeasuredPair], by: str) -> list[MeasuredPair]:
    """Those that have a value of a measure."""
    return [entry for entry in entries if entry.measures[by] is not None]


def ranked(entries: Sequence[MeasuredPair], by: str) -> list[MeasuredPair]:
    """The highest value of a measure first, entries without one last."""
    known = measured(entries, by)
    return sorted(known, key=lambda e: -e.measures[by].value) + [e for e in entries if e.measures[by] is None]
