"""Ranks and their correlation: what scipy.stats gives to the last bit, without the second that its import takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def ranks(values: ArrayLike) -> np.ndarray:
    """The rank of each value, from 1; equal values share the mean of their ranks."""
    _, place, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rho of two rows of equal length; nan where one does not vary."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.corrcoef(np.column_stack((ranks(first), ranks(second))), rowvar=False)[1, 0])
