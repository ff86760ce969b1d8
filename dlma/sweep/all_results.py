"""All results of a sweep: means, tests, values at the same KL and at equal FLOPs, costs, effects, pooled bases."""

from __future__ import annotations

from collections.abc import Sequence

from dlma.config.schema import SweepOptions
from dlma.sweep import costs, curves, estimates, main_effects, pooled_bases, pooled_curves, readings
from dlma.sweep.results import Result
from dlma.sweep.settings import Setting


def results(rows: Sequence[Setting], chosen: SweepOptions) -> list[Result]:
    """Of these settings, in the order of results.csv."""
    final = [row for row in rows if row.final]
    metric, against = curves.metric_of(rows, chosen.metric), chosen.curves_against or chosen.baseline
    along = curves.along_kl(rows, chosen.curve_axis)
    found = estimates.results(final, chosen.baseline, chosen.tested)
    found += readings.results(along, metric, against, chosen.kl_levels)
    found += readings.results(curves.along_flops(rows), metric, chosen.baseline, chosen.flops)
    found += costs.results(final, chosen.baseline)
    found += main_effects.results(final, chosen.metric)
    if chosen.pool_bases:
        found += pooled_bases.results(final, chosen.baseline, chosen.tested)
        found += pooled_curves.results(along, metric, against, chosen.kl_levels)
    return found
