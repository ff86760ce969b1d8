"""Tests between two methods on the same prompts (and seeds), and what a table of such tests needs.

A difference is an array of first minus second: (prompts,) for one seed, (prompts, seeds) for several. The test of a
(prompts, seeds) table is the dual of `statistics.crossed_interval`: p is the level at which the interval touches 0, so
a table never shows an interval without 0 beside a p above 0.05.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtri, ndtr, ndtri, stdtr, stdtrit

from dlma.statistics.intervals import ALONE, Beside, Estimate, crossed_half, mean_squares

TINY = 1e-100  # the smallest p that is told apart from 0
ALPHA, POWER = 0.05, 0.8
MOST_PROMPTS, MOST_SEEDS = 10**9, 10**4


def p_value(differences: ArrayLike, beside: Beside = ALONE) -> float:
    """Two-sided p of a mean difference of 0 over new prompts and, with a (prompts, seeds) table, over new seeds.

    One seed: Student's paired t. 1 where all differences are 0; nan for fewer than two prompts. Where all prompts have
    the same difference, the sign test over them: no deviation says how much others would have.
    """
    table = _table(differences)
    mean = abs(float(table.mean()))
    if table.shape[0] < 2:
        return math.nan
    if mean == 0:
        return 1.0
    if table.min() == table.max() and not beside.seed and not beside.sd:
        return max(2 * 0.5 ** len(table), TINY)
    if table.shape[1] == 1 and not beside.sd:
        error = float(table.std(ddof=1)) / math.sqrt(table.size)
        return 2 * float(stdtr(table.size - 1, -mean / error))
    return _level(mean, lambda tail: crossed_half(table, tail, beside))


def _level(distance: float, half: Callable[[float], float]) -> float:
    """Twice the tail at which half the width of an interval is just this distance; `half` by the tail."""
    low, high = math.log(TINY), 0.0
    if distance >= half(TINY / 2):
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if half(math.exp(middle) / 2) > distance else (low, middle)
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


def shown_within(difference: Estimate, margin: float) -> bool | None:
    """Whether a difference is smaller than a margin, by two one-sided tests at 2.5 % each (Schuirmann 1987).

    True: both hold, which is the whole 95 % interval inside the margin. False: one is reversed, the whole interval
    outside. None: neither is shown, or there is no interval.
    """
    if -margin < difference.low and difference.high < margin:
        return True
    return False if difference.low >= margin or difference.high <= -margin else None


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


def prompts_needed(differences: ArrayLike, beside: Beside = ALONE) -> float:
    """Prompts with which a difference of the size seen here is found at 5 % two-sided with power 0.8, as many seeds.

    One seed: n = z^2 variance / difference^2. Several: the least n at which `p_value` of a table with these components
    has that power; inf where the seeds alone hide it (more prompts do not help) or the difference is 0.
    """
    table = _table(differences)
    mean = abs(float(table.mean()))
    if len(table) < 2 or mean == 0:
        return math.inf
    if table.shape[1] == 1 and not beside.sd:
        z = float(ndtri(1 - ALPHA / 2) + ndtri(POWER))
        return max(2.0, math.ceil(z**2 * float(table.var(ddof=1)) / mean**2))
    found = components(table, beside)
    return _least(MOST_PROMPTS, lambda n: power(n, mean, found) >= POWER)


def seeds_needed(differences: ArrayLike, beside: Beside = ALONE) -> float:
    """Seeds with which a difference of the size seen here is found at 5 % two-sided with power 0.8, as many prompts.

    nan for one seed, which does not show how much seeds differ; inf where the prompts alone hide it.
    """
    table = _table(differences)
    mean = abs(float(table.mean()))
    if table.shape[1] < 2 or len(table) < 2:
        return math.nan
    found = components(table, beside)
    return _least(MOST_SEEDS, lambda k: power(len(table), mean, replace(found, seeds=k)) >= POWER)


def _least(most: int, enough: Callable[[int], bool]) -> float:
    """The least number from 2 on that is enough, as all larger ones are; inf where even the most is not."""
    if not enough(most):
        return math.inf
    few, many = 1, most  # `few` is not enough, `many` is
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return float(many)


@dataclass(frozen=True)
class TwoWayComponents:
    """Two-way random effects of a (prompts, seeds) table: variance between prompts, between seeds, and the rest.

    tables: as many comparisons as the seeds' variance is pooled over
    sd, df: a further error beside the table's (`intervals.Beside`)
    """

    prompt: float
    seed: float
    rest: float
    seeds: int
    tables: int = 1
    sd: float = 0.0
    df: float = 1.0


def components(table: np.ndarray, beside: Beside = ALONE) -> TwoWayComponents:
    """The components of a (prompts, seeds) table; of one seed all that differs counts as the prompts'."""
    n, k = table.shape
    if k == 1:
        return TwoWayComponents(float(table.var(ddof=1)), 0.0, 0.0, 1, 1, beside.sd, beside.df)
    prompts, seeds, rest = mean_squares(table)
    tables = beside.seed_df // (k - 1) or 1
    between = n * beside.seed if beside.seed_df else seeds
    return TwoWayComponents(
        max(0.0, prompts - rest) / k, max(0.0, between - rest) / n, rest, k, tables, beside.sd, beside.df
    )


def power(n: int, mean: float, of: TwoWayComponents) -> float:
    """How often `p_value` < ALPHA finds this mean with n prompts.

    The seeds' mean square has tables x (seeds - 1) degrees of freedom, so it is averaged over chi-square; the others
    count as known.
    """
    k, tail = of.seeds, 1 - ALPHA / 2
    over_prompts = float(stdtrit(n - 1, tail)) ** 2
    least = np.array(over_prompts * (of.rest + k * of.prompt))
    square = least
    if k > 1:
        df = of.tables * (k - 1)
        chi = chdtri(df, (np.arange(200) + 0.5) / 200) / df
        square = float(stdtrit(df, tail)) ** 2 * (of.rest + n * of.seed) * chi + over_prompts * k * of.prompt
    half = np.sqrt(np.maximum(square, least) / (n * k) + (float(stdtrit(of.df, tail)) * of.sd) ** 2)
    error = math.sqrt(of.prompt / n + of.seed / k + of.rest / (n * k) + of.sd**2)
    return float((ndtr((mean - half) / error) + ndtr((-mean - half) / error)).mean()) if error else 1.0
