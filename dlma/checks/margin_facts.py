"""Statistics of the scored pairs: the distribution of the margin R, its clamp, and its agreement with a truth.

`truth[i]` is how much better the positive answer of pair i truly is (0 is a tie), or None where unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlma.records import ScoredPair
from dlma.statistics.intervals import Estimate, mean_interval, share_interval
from dlma.statistics.ranks import rank_correlation

CLASSES = ("better", "tie", "worse", "unknown")


@dataclass(frozen=True)
class Bin:
    """One bin of |R|: its mean |R| and how often sign(R) names the truly better answer."""

    size: float
    accuracy: Estimate


@dataclass(frozen=True)
class MarginFacts:
    """`*_accuracy` leave the ties of the truth out; `sign_ties_half` counts each as a half."""

    mean: Estimate
    sd: float
    negative: Estimate
    clamped: Estimate
    ties: int
    sign_accuracy: Estimate | None
    sign_ties_half: Estimate | None
    construction_accuracy: Estimate | None
    spearman: Estimate | None
    bins: list[Bin]


def margin_truth(pairs: Sequence[ScoredPair], truth: Sequence[float | None]) -> tuple[Sequence[float | None], str]:
    """What R is held against, and its name: the truth where any is known, else the judge that labelled the pairs."""
    if any(value is not None for value in truth):
        return truth, "the truth"
    verdicts = [[v for v in (pair.verdict_first, pair.verdict_second) if v is not None] for pair in pairs]
    if any(verdicts) and all(pair.positive_under_positive is not None for pair in pairs):  # else R is the verdict
        return [sum(both) / len(both) if both else None for both in verdicts], "the judge that labelled the pairs"
    return [None] * len(pairs), "the truth"


def truth_class(value: float | None) -> str:
    if value is None:
        return "unknown"
    return "better" if value > 0 else "worse" if value < 0 else "tie"


def margin_facts(
    margins: Sequence[float], truth: Sequence[float | None], low: float | None, high: float | None
) -> MarginFacts:
    """`low`, `high`: the clamp, None where there is none. Both sequences must have one item per pair."""
    if len(margins) != len(truth):
        raise ValueError("one truth (or None) per margin")
    array = np.asarray(margins, dtype=np.float64)
    out = (array < (-math.inf if low is None else low)) | (array > (math.inf if high is None else high))
    known = [(margin, value) for margin, value in zip(margins, truth) if value is not None]
    decided = [(margin, value) for margin, value in known if value != 0]
    return MarginFacts(
        mean=mean_interval(array),
        sd=float(array.std(ddof=1)) if array.size > 1 else math.nan,
        negative=share_interval(array < 0),
        clamped=share_interval(out),
        ties=len(known) - len(decided),
        sign_accuracy=_mean([_agrees(*pair) for pair in decided]),
        sign_ties_half=_mean([_agrees(*pair) for pair in known]),
        construction_accuracy=_mean([float(value > 0) for _, value in decided]),
        spearman=spearman(known),
        bins=_reliability(decided),
    )


def _agrees(margin: float, truth: float) -> float:
    """1 when the signs agree, 0 when they do not, a half when either is 0."""
    return 0.5 * (1 + np.sign(margin) * np.sign(truth))


def four_logps(pairs: Sequence[ScoredPair]) -> list[tuple[float, float, float, float]] | None:
    """Each pair's log-probs: positive answer under p+, p-, negative under p+, p-; None where a pair lacks any."""
    found = []
    for p in pairs:
        one, two = p.positive_under_positive, p.positive_under_negative
        three, four = p.negative_under_positive, p.negative_under_negative
        if one is None or two is None or three is None or four is None:
            return None
        found.append((one, two, three, four))
    return found


def is_judged(pairs: Sequence[ScoredPair]) -> bool:
    """Whether the margins are a judge's log-odds, ratings or implicit rewards: no R, and maybe no nats."""
    said = ((p.verdict_first, p.verdict_second, p.positive_score) != (None, None, None) for p in pairs)
    return four_logps(pairs) is None and any(said)


def _mean(values: list[float]) -> Estimate | None:
    return _share(values) if values else None


def _share(values: list[float]) -> Estimate:
    return share_interval(values) if set(values) <= {0.0, 1.0} else mean_interval(values)


def _reliability(decided: list[tuple[float, float]]) -> list[Bin]:
    """At most 10 bins of equal count, of at least 20 pairs each; accuracy against |R|."""
    count = min(10, len(decided) // 20)
    if count == 0:
        return []
    ordered = sorted(decided, key=lambda pair: abs(pair[0]))
    groups = [ordered[i * len(ordered) // count : (i + 1) * len(ordered) // count] for i in range(count)]
    return [
        Bin(float(np.mean([abs(margin) for margin, _ in group])), _share([_agrees(*pair) for pair in group]))
        for group in groups
    ]


def spearman(known: list[tuple[float, float]]) -> Estimate | None:
    """Spearman's rho of two columns; None below four rows, or where one does not vary.

    The interval is by Fisher's z with Bonett and Wright's variance (2000); of 1 and -1, whose z is infinite, from 1/n^2
    nearer to 0 on to that end.
    """
    n = len(known)
    if n < 4 or any(len(set(column)) < 2 for column in zip(*known)):
        return None
    rho = rank_correlation(*zip(*known))
    half = 1.959964 * math.sqrt((1 + rho * rho / 2) / (n - 3))
    z = math.atanh(max(-1 + 1 / n**2, min(1 - 1 / n**2, rho)))
    return Estimate(rho, min(rho, math.tanh(z - half)), max(rho, math.tanh(z + half)), n)
