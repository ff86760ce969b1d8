"""How much seeds differ, pooled over the comparisons of a table: many degrees of freedom instead of (seeds - 1).

The mixed model is of the mean of method c in seed s, y[c, s] = m[c] + S[s] + e[c, s]: what a seed does to all methods
is random and leaves every difference, what it does to one method is random too and equally large for all of them.
Differences from a baseline that was trained as well are y[c, s] - y[0, s], so the residual of the two-way table with
the baseline as a row of zeros is that of the methods themselves; it has m (seeds - 1) degrees of freedom for m
comparisons, and a difference has twice its variance. Where methods differ in how much seeds move them the pooled
variance is too small for some: experiments/power/ says by how much the test is then off its level.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlma.statistics.intervals import ALONE, Beside


def pooled(tables: Sequence[np.ndarray]) -> Beside:
    """The seeds' variance of a difference, of (prompts, seeds) tables of differences from one trained baseline.

    The tables have the same seeds in the same order. Nothing is pooled of one table, or over one seed.
    """
    means = np.array([table.mean(axis=0) for table in tables])
    comparisons, seeds = means.shape
    if comparisons < 2 or seeds < 2:
        return ALONE
    rows = np.vstack([np.zeros(seeds), means])
    rest = rows - rows.mean(axis=1, keepdims=True) - rows.mean(axis=0) + rows.mean()
    df = comparisons * (seeds - 1)
    return Beside(seed=2 * float((rest**2).sum()) / df, seed_df=df)
