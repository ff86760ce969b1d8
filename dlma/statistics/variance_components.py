"""Several independently trained bases: prompts crossed with bases, seeds within bases, all three random.

y[p, b, s] = m + P[p] + B[b] + S[b, s] + (PB)[p, b] + e[p, b, s], balanced: every base has the same number of seeds.
The variance of the mean is (MS_prompt + MS_base - MS_prompt:base) / (n b k), which is that of the (prompts, bases)
table of means over seeds: seeds and bases add up in MS_base. So its interval is `statistics.crossed_interval` of that
table, with bases - 1 degrees of freedom: three bases say little about new bases, and the interval shows it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from dlma.statistics.intervals import Estimate, crossed_interval


@dataclass(frozen=True)
class Components:
    """Estimated variances (never below 0): what prompts, bases, seeds within a base, and the rest each add."""

    prompt: float
    base: float
    seed: float
    prompt_base: float
    error: float


def _cube(values: ArrayLike) -> np.ndarray:
    cube = np.asarray(values, dtype=np.float64)
    if cube.ndim != 3 or not cube.size or not np.isfinite(cube).all():
        raise ValueError(f"expected finite values of shape (prompts, bases, seeds), got {cube.shape}")
    return cube


def nested_interval(values: ArrayLike) -> Estimate:
    """The mean of (prompts, bases, seeds) values over new prompts, new bases and new seeds; `seeds` counts all runs.

    One base is that base alone, as in `crossed_interval` over its seeds.
    """
    cube = _cube(values)
    _, bases, seeds = cube.shape
    found = crossed_interval(cube[:, 0, :] if bases == 1 else cube.mean(axis=2))
    return replace(found, seeds=bases * seeds)


def components(values: ArrayLike) -> Components:
    """Variance components by the analysis of variance of a balanced table; two or more of each factor."""
    cube = _cube(values)
    n, bases, seeds = cube.shape
    if min(cube.shape) < 2:
        raise ValueError(f"two prompts, bases and seeds are needed, got {cube.shape}")
    grand, cells = cube.mean(), cube.mean(axis=2)
    prompts, of_base, of_seed = cube.mean(axis=(1, 2)), cube.mean(axis=(0, 2)), cube.mean(axis=0)
    ms_prompt = bases * seeds * ((prompts - grand) ** 2).sum() / (n - 1)
    ms_base = n * seeds * ((of_base - grand) ** 2).sum() / (bases - 1)
    ms_seed = n * ((of_seed - of_base[:, None]) ** 2).sum() / (bases * (seeds - 1))
    mixed = cells - prompts[:, None] - of_base[None, :] + grand
    ms_mixed = seeds * (mixed**2).sum() / ((n - 1) * (bases - 1))
    rest = cube - cells[:, :, None] - of_seed[None] + of_base[None, :, None]
    ms_error = (rest**2).sum() / (bases * (n - 1) * (seeds - 1))
    parts = (
        (ms_prompt - ms_mixed) / (bases * seeds),
        (ms_base - ms_seed - ms_mixed + ms_error) / (n * seeds),
        (ms_seed - ms_error) / n,
        (ms_mixed - ms_error) / seeds,
        ms_error,
    )
    return Components(*(max(0.0, float(part)) for part in parts))
