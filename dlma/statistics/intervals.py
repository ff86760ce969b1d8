"""Intervals for every number that is reported: 95 %, two-sided, with the number of prompts and seeds.

Pure functions of arrays. Within one seed the prompts are the sample. Over several seeds prompts and seeds
are crossed, and both are random: the interval is about new prompts and new seeds.
An interval that cannot be estimated (one prompt) is nan, never zero width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

LEVEL = 0.95
_TAIL = 0.5 + LEVEL / 2


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, over `n` prompts (or pairs) and `seeds` seeds."""

    value: float
    low: float
    high: float
    n: int
    seeds: int = 1


@dataclass(frozen=True)
class Beside:
    """What is known of an error beside a (prompts, seeds) table: the defaults are nothing.

    seed: the variance of one seed's mean, what prompts add to it included, pooled over several tables, on `seed_df`
    degrees of freedom; 0: the table's own, on (seeds - 1)
    sd: of a further error that more prompts or seeds do not lessen, on `df` degrees of freedom; independent of the rest
    """

    seed: float = 0.0
    seed_df: int = 0
    sd: float = 0.0
    df: float = 1.0


ALONE = Beside()


def _sample(values: ArrayLike, dims: int = 1) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dims or array.size == 0:
        raise ValueError(f"expected a non-empty array of {dims} dimension(s), got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("a value is not finite")
    return array


def _t(df: int) -> float:
    return float(stdtrit(df, _TAIL))


def mean_interval(values: ArrayLike) -> Estimate:
    """The mean with Student's t interval; nan bounds for a single value."""
    array = _sample(values)
    n, mean = array.size, float(array.mean())
    half = _t(n - 1) * float(array.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Estimate(mean, mean - half, mean + half, n)


def share_interval(hits: ArrayLike) -> Estimate:
    """The share of true values with Wilson's score interval, which holds at 0 and at 1 too."""
    array = _sample(hits)
    if not np.isin(array, (0.0, 1.0)).all():
        raise ValueError("a share is of true and false values")
    return _wilson(float(array.mean()), array.size)


def _wilson(share: float, n: int) -> Estimate:
    z2 = float(ndtri(_TAIL)) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Estimate(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)), n)


def fraction_interval(values: ArrayLike) -> Estimate:
    """The mean of values within [0, 1]: t, kept inside [0, 1].

    Where all are equal, t would claim certainty: Wilson's bound then, which is wide enough since no variable on
    [0, 1] varies more than a coin of the same mean.
    """
    array = _sample(values)
    if array.min() < 0 or array.max() > 1:
        raise ValueError("a fraction is outside [0, 1]")
    if array.min() == array.max():
        return _wilson(float(array.mean()), array.size)
    return _within(mean_interval(array), 0.0, 1.0)


def _within(estimate: Estimate, low: float, high: float) -> Estimate:
    return replace(estimate, low=max(low, estimate.low), high=min(high, estimate.high))


def linearised_ratio(numerators: np.ndarray, denominators: np.ndarray) -> tuple[float, np.ndarray]:
    """The ratio of sums, and what each prompt adds to it to first order (the delta method); any shape, mean 0."""
    ratio = float(numerators.sum() / denominators.sum())
    return ratio, (numerators - ratio * denominators) / denominators.mean()


def _residuals(numerators: np.ndarray, denominators: np.ndarray) -> tuple[float, np.ndarray]:
    if numerators.shape != denominators.shape:
        raise ValueError("numerators and denominators differ in shape")
    if denominators.min() < 0 or denominators.sum() <= 0:
        raise ValueError("denominators must not be negative, nor all zero")
    return linearised_ratio(numerators, denominators)


def ratio_interval(numerators: ArrayLike, denominators: ArrayLike) -> Estimate:
    """sum(numerators) / sum(denominators), such as nats per token: t on the linearised ratio."""
    ratio, residuals = _residuals(_sample(numerators), _sample(denominators))
    return _shift(mean_interval(residuals), ratio)


def _shift(estimate: Estimate, by: float) -> Estimate:
    return replace(estimate, value=by, low=estimate.low + by, high=estimate.high + by)


def exponential(estimate: Estimate) -> Estimate:
    """exp of value and bounds: log-perplexity to perplexity; inf where that is beyond any number."""
    value, low, high = (_exp(part) for part in (estimate.value, estimate.low, estimate.high))
    return replace(estimate, value=value, low=low, high=high)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def mean_squares(matrix: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of a (prompts, seeds) table: of prompts, of seeds, and the residual's."""
    n, k = matrix.shape
    grand, rows, columns = matrix.mean(), matrix.mean(axis=1), matrix.mean(axis=0)
    residual = matrix - rows[:, None] - columns[None, :] + grand
    prompts = k * float(((rows - grand) ** 2).sum()) / (n - 1)
    seeds = n * float(((columns - grand) ** 2).sum()) / (k - 1)
    return prompts, seeds, float((residual**2).sum()) / ((n - 1) * (k - 1))


def crossed_interval(matrix: ArrayLike, beside: Beside = ALONE) -> Estimate:
    """The mean of a (prompts, seeds) table where prompts and seeds are both random.

    var(mean) = (MS_prompt + MS_seed - MS_error) / (n k), two-way random effects. Each part keeps its own
    t quantile (Howe 1974; Graybill and Wang 1980):
    half^2 = (t[k-1]^2 MS_seed + t[n-1]^2 max(0, MS_prompt - MS_error)) / (n k),
    and never less than seeds held fixed, t[n-1]^2 MS_prompt / (n k). One t with Satterthwaite's degrees of
    freedom covers only 92 % with 3 seeds when the seed effect is some times the prompts'; this holds 95 %.
    One seed leaves no way to see a seed effect: then it is the interval for this seed, and says so (seeds=1).
    `beside`: a seed variance that takes the place of MS_seed / n, and a further error, which adds a part of its own.
    """
    table = _sample(matrix, dims=2)
    n, k = table.shape
    if k == 1 and not beside.sd:
        return mean_interval(table[:, 0])
    mean = float(table.mean())
    half = crossed_half(table, 1 - _TAIL, beside) if n > 1 else math.nan
    return Estimate(mean, mean - half, mean + half, n, k)


def crossed_half(table: np.ndarray, tail: float, beside: Beside = ALONE) -> float:
    """Half the width of `crossed_interval` with probability `tail` beyond each bound; (prompts, seeds), two prompts."""
    n, k = table.shape
    over_prompts = float(stdtrit(n - 1, tail)) ** 2
    further = float(stdtrit(beside.df, tail)) ** 2 * beside.sd**2
    if k == 1:
        return math.sqrt(over_prompts * float(table.var(ddof=1)) / n + further)
    prompts, seeds, error = mean_squares(table)
    seeds, df = (n * beside.seed, beside.seed_df) if beside.seed_df else (seeds, k - 1)
    square = float(stdtrit(df, tail)) ** 2 * seeds + over_prompts * max(0.0, prompts - error)
    return math.sqrt(max(square, over_prompts * prompts) / (n * k) + further)


def crossed_fraction(matrix: ArrayLike) -> Estimate:
    """`crossed_interval` for values within [0, 1]; all 0 or all 1 counts each prompt once (Wilson)."""
    table = _sample(matrix, dims=2)
    if table.shape[1] == 1 or table.min() == table.max():
        return replace(fraction_interval(table.mean(axis=1)), seeds=table.shape[1])
    return _within(crossed_interval(table), 0.0, 1.0)


def crossed_ratio(numerators: ArrayLike, denominators: ArrayLike) -> Estimate:
    """`ratio_interval` over (prompts, seeds) tables."""
    ratio, residuals = _residuals(_sample(numerators, dims=2), _sample(denominators, dims=2))
    return _shift(crossed_interval(residuals), ratio)


def with_exact_bounds(difference: Estimate, differences: ArrayLike, unit: float | None) -> Estimate:
    """A mean difference whose prompts all have the same one, which no deviation is to be had from, with its bounds.

    n prompts alike leave open, at 2.5 % to each side, that a share of 1 - 0.025^(1/n) of all prompts is of another kind
    (Clopper and Pearson 1934). Such a prompt is taken to go the other way; where all differ by 0, to differ by `unit`,
    None where none is known: then the bounds stay.
    """
    table = np.asarray(differences, dtype=np.float64)
    if len(table) < 2 or table.min() != table.max():
        return difference
    size = 2 * abs(difference.value) or unit or 0.0
    half = size * (1 - (1 - _TAIL) ** (1 / len(table)))
    cap = math.inf if unit is None else unit
    return _within(replace(difference, low=difference.value - half, high=difference.value + half), -cap, cap)


def paired_difference(first: ArrayLike, second: ArrayLike) -> Estimate:
    """The mean of first - second over the same prompts, or the same (prompts, seeds) table."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired values differ in shape: {a.shape} and {b.shape}")
    return crossed_interval(a - b) if a.ndim == 2 else mean_interval(a - b)
