"""Main effects of a crossed sweep: what each choice changes, averaged over every other choice of the sweep.

A sweep over labels=none,scored pairs=plain,contrastive has four settings; the effect of pairs is the mean of the two
with one value less the mean of the two with the other, paired by prompt and seed. Only where all combinations were run,
by all runs together or by those of one sweep's folder.
A result's `settings` are the factor and its level alone, `versus` is the other level.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from dlma.metrics.summary import BEYOND
from dlma.statistics import intervals, significance
from dlma.sweep.curves import metric_of
from dlma.sweep.estimates import tables_of
from dlma.sweep.results import Result, result
from dlma.sweep.settings import SHARED_ARMS, Setting, metrics_of


def results(rows: Sequence[Setting], of: str | None = None) -> list[Result]:
    """Every difference between two levels of a factor, in the curves' height, KL and what is beyond a reference curve.

    Of a difference that several sweeps have, the first one's; Holm over all of them.
    """
    found: dict[tuple, tuple[Result, np.ndarray]] = {}
    for design in (design for sweep in _sweeps(rows) for design in _designs(sweep)):
        for row, table in _effects(design, of):
            found.setdefault(row.key, (row, table))
    adjusted = significance.holm([significance.p_value(table) for _, table in found.values()])
    return [replace(row, p_holm=p) for (row, _), p in zip(found.values(), adjusted, strict=True)]


def _sweeps(rows: Sequence[Setting]) -> list[Sequence[Setting]]:
    """All settings; and where their runs lie in several folders, those of each."""
    places = [{cell.folder.parent for cell in row.runs.values()} for row in rows]
    apart = list(dict.fromkeys(place for inside in places for place in inside))
    each = [[row for row, inside in zip(rows, places, strict=True) if inside == {place}] for place in apart]
    return [rows, *(each if len(apart) > 1 else [])]


def _effects(design: Sequence[Setting], of: str | None) -> Iterator[tuple[Result, np.ndarray]]:
    named = [metric_of(design, of), "kl", BEYOND.name if BEYOND.name in metrics_of(design) else None]
    for key, metric in itertools.product(_factors(design), [name for name in named if name]):
        yield from _differences(design, key, metric)


def _designs(rows: Sequence[Setting]) -> list[list[Setting]]:
    """The settings of a method on a base, where at least two factors are crossed with nothing left out."""
    groups: dict[tuple[str, str], list[Setting]] = {}
    for row in rows:
        if row.arm not in SHARED_ARMS:
            groups.setdefault((row.base, row.method), []).append(row)
    return [design for design in groups.values() if _is_crossed(design)]


def _is_crossed(design: Sequence[Setting]) -> bool:
    factors = _factors(design)
    complete = math.prod(len(levels) for levels in factors.values())
    cells = {tuple(row.overrides.get(key) for key in factors) for row in design}
    return len(factors) > 1 and len(cells) == len(design) == complete


def _factors(design: Sequence[Setting]) -> dict[str, list[str]]:
    """Per override that differs here, its values in the order of the sweep."""
    keys = dict.fromkeys(key for row in design for key in row.overrides)
    levels = {key: list(dict.fromkeys(row.overrides.get(key, "default") for row in design)) for key in keys}
    return {key: values for key, values in levels.items() if len(values) > 1}


def _differences(design: Sequence[Setting], key: str, metric: str) -> list[tuple[Result, np.ndarray]]:
    """Each two levels of one factor: the row, and the (prompts, seeds) table of differences."""
    means = _level_means(design, key, metric)
    if means is None:
        return []
    seeds, tables = means
    found = []
    for one, other in itertools.combinations(tables, 2):
        table = tables[other] - tables[one]
        row = replace(design[0], settings=((key, other),))
        unit = 1.0 if metrics_of(design)[metric].kind == "share" else None
        e = intervals.with_exact_bounds(intervals.crossed_interval(table), table, unit)
        found.append((result(row, metric, e, seeds, statistic="effect", versus=one), table))
    return found


def _level_means(design: Sequence[Setting], key: str, metric: str) -> tuple[list[int], dict[str, np.ndarray]] | None:
    """Per level its (prompts, seeds) table, a mean over the settings with it; None where a run lacks the metric."""
    of = metrics_of(design)[metric]
    seeds = sorted(set.intersection(*(set(row.runs) for row in design)))
    every = [row.arms[seed] for row in design for seed in seeds]
    if of.kind not in ("mean", "share") or not every or any(metric not in arm.numbers for arm in every):
        return None
    tables: dict[str, list[np.ndarray]] = {}
    for row in design:
        values = tables_of(of, [row.arms[seed] for seed in seeds], every)
        if values is None or len(values) < 2:
            return None
        tables.setdefault(row.overrides.get(key, "default"), []).append(values[:, :, 0])
    return seeds, {level: np.mean(inside, axis=0) for level, inside in tables.items()}
