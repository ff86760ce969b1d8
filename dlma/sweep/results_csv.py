"""All rows of results.csv: means, tests, values at the same KL and at equal FLOPs, costs, effects, pooled bases."""

from __future__ import annotations

from collections.abc import Sequence

from dlma.sweep import costs, equal_flops, main_effects, pooled_bases
from dlma.sweep import curves as kl_curves
from dlma.sweep import estimates as sweep_results
from dlma.sweep.estimates import Result
from dlma.sweep.settings import Setting


def results(
    rows: Sequence[Setting],
    *,
    baseline: str | None,
    tested: Sequence[str] | None,
    levels: Sequence[float],
    flops: Sequence[float] | None,
    pool_bases: bool,
    curves_against: str | None = None,
    curves_over: Sequence[str] | None = None,
    height: str | None = None,
) -> list[Result]:
    """Of these settings.

    baseline: what every row is held against; curves_against: another one for the curves; tested: metrics compared
    curves_over: the overrides that run along a curve of harm against KL; None: every one with a number
    height: the metric that curves and effects are of; None: harm, else a cost, else a reward
    levels, flops: KLs and budgets of operations at which curves are read; pool_bases: bases are a random factor too
    """
    final = [row for row in rows if row.final]
    found = sweep_results.results(final, baseline, tested)
    found += kl_curves.results(rows, curves_against or baseline, levels, curves_over, height)
    found += equal_flops.results(rows, baseline, flops, height)
    found += costs.results(final, baseline)
    found += main_effects.results(final, height)
    return found + (pooled_bases.results(final, baseline, tested) if pool_bases else [])
