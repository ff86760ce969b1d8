"""Several independently trained bases as a factor (`sweep.pool_bases=true`): one more block of rows in results.csv.

Only for bases that stand for one another, such as the same recipe with other seeds: the interval is about new bases.
A row of the block has all bases in its `base` column, and its settings' seeds are those that every base has.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np

from dlma.metrics.summary import Metric
from dlma.runs.cells import Arm
from dlma.statistics import intervals
from dlma.statistics.intervals import ALONE, Beside, Estimate, linearised_ratio
from dlma.statistics.variance_components import components, nested_interval
from dlma.sweep.estimates import paired_table, statistic_of, tables_of, tested_metrics, with_tests
from dlma.sweep.results import SEVERAL_BASES, Further, Result, result
from dlma.sweep.settings import Setting, baseline_of, metrics_of


def results(rows: Sequence[Setting], baseline: str | None, tested: Sequence[str] | None) -> list[Result]:
    """Means, sizes of the factors, and comparisons with the baseline, for every setting that two or more bases have."""
    found, compared = [], []
    for label in dict.fromkeys(row.label for row in rows):
        same = [row for row in rows if row.label == label]
        if len(same) > 1 and len({row.base for row in same}) == len(same):
            found += [line for metric in metrics_of(same).values() for line in _means(same, metric)]
            compared += _compared(same, rows, baseline, tested_metrics(rows) if tested is None else tested)
    return found + [one for one in with_tests(compared) if one.statistic != "needed_seeds"]  # columns are bases here


def _seeds(same: Sequence[Setting]) -> list[int]:
    return sorted(set.intersection(*(set(row.runs) for row in same)))


def _result(same: Sequence[Setting], seeds: Sequence[int], metric: str, e: Estimate, **what: Unpack[Further]) -> Result:
    row = replace(same[0], base=SEVERAL_BASES.join(row.base for row in same))
    return result(row, metric, e, seeds, **what)


def _arms(row: Setting, seeds: Sequence[int]) -> list[Arm]:
    return [row.arms[seed] for seed in seeds]


def _beside(tables: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The tables of all bases as one, (prompts, bases, ...); None where a base has none, or less than two prompts."""
    known = [table for table in tables if table is not None and len(table) > 1]
    return np.stack(known, axis=1) if len(known) == len(tables) else None


def _means(same: Sequence[Setting], metric: Metric) -> list[Result]:
    seeds = _seeds(same)
    every = [arm for row in same for arm in _arms(row, seeds)]
    if not every or any(metric.name not in arm.numbers for arm in every):
        return []
    numbers = _beside([tables_of(metric, _arms(row, seeds), every) for row in same])  # (prompts, bases, seeds, 2)
    if numbers is None:
        return []
    values, weights = numbers[..., 0], numbers[..., 1]
    ratio = metric.kind in ("ratio", "exp_ratio")
    if ratio:
        mean, residuals = linearised_ratio(values, weights)
        values = mean + residuals
    e = nested_interval(values)
    if metric.kind == "share" and values.min() == values.max():  # all 0 or all 1
        e = intervals.crossed_fraction(values.reshape(len(values), -1))
    elif metric.kind == "share":
        e = replace(e, low=max(0.0, e.low), high=min(1.0, e.high))
    shown = intervals.exponential(e) if metric.kind == "exp_ratio" else e
    return [_result(same, seeds, metric.name, shown), *_sizes(same, seeds, metric.name, values)]


def _sizes(same: Sequence[Setting], seeds: Sequence[int], metric: str, values: np.ndarray) -> list[Result]:
    """How far prompts, bases and seeds each move the metric: standard deviations."""
    if min(values.shape) < 2:
        return []
    parts = components(values)
    sizes = {"prompts": parts.prompt, "bases": parts.base, "seeds": parts.seed}
    return [
        _result(
            same, seeds, metric, Estimate(math.sqrt(size), math.nan, math.nan, len(values)), statistic="sd", axis=of
        )
        for of, size in sizes.items()
    ]


def _compared(
    same: Sequence[Setting], rows: Sequence[Setting], baseline: str | None, tested: Sequence[str]
) -> list[tuple[Result, np.ndarray, Beside]]:
    """Per tested metric the comparison, its (prompts, bases) differences, and nothing beside them."""
    others = [other for row in same if (other := baseline_of(row, rows, baseline)) is not None]
    if len(others) < len(same):
        return []
    seeds = sorted(set(_seeds(same)) & set(_seeds(others)))
    pairs = [[(row.arms[s], other.arms[s]) for s in seeds] for row, other in zip(same, others, strict=True)]
    every = [arm for both in itertools.chain(*pairs) for arm in both]
    metrics, found = metrics_of(rows), []
    for name in tested:
        if not every or any(name not in arm.numbers for arm in every):
            continue
        cube = _beside([paired_table(metrics[name], one, every) for one in pairs])
        if cube is None:
            continue
        unit = 1.0 if metrics[name].kind == "share" else None
        e = intervals.with_exact_bounds(nested_interval(cube), cube, unit)
        shown = intervals.exponential(e) if metrics[name].kind == "exp_ratio" else e
        what: Further = {"statistic": statistic_of(metrics[name]), "versus": others[0].label}
        found.append((_result(same, seeds, name, shown, **what), cube.mean(axis=2), ALONE))
    return found
