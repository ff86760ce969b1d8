"""Tests between two methods on the same prompts (and seeds), and what a table of such tests needs.

A difference is an array of first minus second: (prompts,) for one seed, (prompts, seeds) for several. The test of a
(prompts, seeds) table is the dual of `statistics.crossed_interval`: p is the level at which the interval touches 0, so
a table never shows an interval without 0 beside a p above 0.05.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtri, ndtr, ndtri, stdtr, stdtrit

from dlma.statistics.intervals import Estimate, crossed_half, mean_squares

TINY = 1e-100  # the smallest p that is told apart from 0
ALPHA, POWER = 0.05, 0.8
MOST_PROMPTS = 10**9


def p_value(differences: ArrayLike) -> float:
    """Two-sided p of a mean difference of 0 over new prompts and, with a (prompts, seeds) table, over new seeds.

    One seed: Student's paired t. 1 where all differences are 0; nan for fewer than two prompts.
    """
    table = _table(differences)
    mean = abs(float(table.mean()))
    if table.shape[0] < 2:
        return math.nan
    if mean == 0:
        return 1.0
    if table.shape[1] == 1:
        error = float(table.std(ddof=1)) / math.sqrt(table.size)
        return 2 * float(stdtr(table.size - 1, -mean / error)) if error else 0.0
    low, high = math.log(TINY), 0.0
    if mean >= crossed_half(table, TINY / 2):
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if crossed_half(table, math.exp(middle) / 2) > mean else (low, middle)
    return math.exp(high)


def _table(differences: ArrayLike) -> np.ndarray:
    array = np.asarray(differences, dtype=np.float64)
    table = array[:, None] if array.ndim == 1 else array
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ValueError(f"expected finite differences of shape (prompts,) or (prompts, seeds), got {array.shape}")
    return table


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p over one table, in the order given; nan stays nan and counts as no test."""
    adjusted = [math.nan] * len(p_values)
    tested = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    running = 0.0
    for rank, (p, i) in enumerate(tested):
        running = max(running, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = running
    return adjusted


@dataclass(frozen=True)
class Bound:
    """How much worse the first may still be: the worse end of the difference's 95 % interval, 0 at the least.

    One-sided level 97.5 %, as regulators ask of non-inferiority.
    """

    worst: float

    def holds(self, margin: float) -> bool:
        """Whether "no worse by `margin` or more" is shown."""
        return self.worst < margin


def non_inferiority(difference: Estimate, better: str) -> Bound:
    """The bound from a difference (first minus second) of a metric whose wanted direction is "higher" or "lower"."""
    if better not in ("higher", "lower"):
        raise ValueError(f"non-inferiority needs a wanted direction, not {better!r}")
    worst = -difference.low if better == "higher" else difference.high
    return Bound(max(0.0, worst) if not math.isnan(worst) else math.nan)


def prompts_needed(differences: ArrayLike) -> float:
    """Prompts with which a difference of the size seen here is found at 5 % two-sided with power 0.8, as many seeds.

    One seed: n = z^2 variance / difference^2. Several: the least n at which `p_value` of a table with these components
    has that power; inf where the seeds alone hide it (more prompts do not help) or the difference is 0.
    """
    table = _table(differences)
    mean = abs(float(table.mean()))
    if len(table) < 2 or mean == 0:
        return math.inf
    if table.shape[1] == 1:
        z = float(ndtri(1 - ALPHA / 2) + ndtri(POWER))
        return max(2.0, math.ceil(z**2 * float(table.var(ddof=1)) / mean**2))
    found = _components(table)
    if _power(MOST_PROMPTS, mean, found) < POWER:
        return math.inf
    few, many = 1, MOST_PROMPTS  # `few` prompts have too little power, `many` enough
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if _power(middle, mean, found) >= POWER else (middle, many)
    return float(many)


@dataclass(frozen=True)
class TwoWayComponents:
    """Two-way random effects of a (prompts, seeds) table: variance between prompts, between seeds, and the rest."""

    prompt: float
    seed: float
    rest: float
    seeds: int


def _components(table: np.ndarray) -> TwoWayComponents:
    n, k = table.shape
    prompts, seeds, rest = mean_squares(table)
    return TwoWayComponents(max(0.0, prompts - rest) / k, max(0.0, seeds - rest) / n, rest, k)


def _power(n: int, mean: float, of: TwoWayComponents) -> float:
    """How often `p_value` < ALPHA finds this mean with n prompts.

    The seeds' mean square has k - 1 degrees of freedom, so it is averaged over chi-square; the others count as known.
    """
    k, tail = of.seeds, 1 - ALPHA / 2
    chi = chdtri(k - 1, (np.arange(200) + 0.5) / 200) / (k - 1)
    over_prompts = float(stdtrit(n - 1, tail)) ** 2
    square = float(stdtrit(k - 1, tail)) ** 2 * (of.rest + n * of.seed) * chi + over_prompts * k * of.prompt
    half = np.sqrt(np.maximum(square, over_prompts * (of.rest + k * of.prompt)) / (n * k))
    error = math.sqrt(of.prompt / n + of.seed / k + of.rest / (n * k))
    return float((ndtr((mean - half) / error) + ndtr((-mean - half) / error)).mean()) if error else 1.0
