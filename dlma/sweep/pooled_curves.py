"""Curves of several independently trained bases at the same KL: bases as a factor (`sweep.pool_bases=true`).

Each base's curve is read by itself (readings.py). A column of the table behind a number is a base: the mean over its
seeds, prompt by prompt, so that the interval is about new bases and new prompts. What the lines of a method's curves
miss is taken to be alike on all bases: it does not shrink with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from dlma.statistics import curve_fit, intervals
from dlma.statistics.intervals import Beside
from dlma.sweep import readings
from dlma.sweep.curves import Curve
from dlma.sweep.estimates import with_tests
from dlma.sweep.readings import CURVED, Read, Table
from dlma.sweep.results import SEVERAL_BASES, Further, Result, result
from dlma.sweep.settings import metrics_of

Terms = Sequence[tuple[int, Read]]  # readings with their signs, which are added up
Over = tuple[list[int], np.ndarray, Beside]  # seeds, (prompts, bases), what the lines miss


def results(drawn: Sequence[Curve], metric: str | None, against: str | None, levels: Sequence[float]) -> list[Result]:
    """The value at each KL of every curve that all bases have there, and its difference from that of `against`.

    A difference is paired over prompts within each base; the variance between bases is pooled over the differences
    from one curve at a level, Holm is over all of them.
    """
    if (
        not drawn
        or metric is None
        or metrics_of([row for curve in drawn for row in curve.points])[metric].kind not in CURVED
    ):
        return []
    found: list[Result] = []
    families: dict[tuple, list[tuple[Result, np.ndarray, Beside]]] = {}
    for at in levels:
        read = {id(alike[0].curve): alike for alike in _alike(drawn, metric, at)}
        for alike in read.values():
            found += _value(alike)
            first = alike[0].curve
            other = readings.like(first, [curve for curve in drawn if curve.base == first.base], against)
            if (subject := read.get(id(other))) and (compared := _difference(alike, subject)):
                row = compared[0]
                families.setdefault((row.base, row.at, row.versus, row.seeds), []).append(compared)
    pooled = [one for family in families.values() for one in readings.over_pooled_seeds(family)]
    return found + [one for one in with_tests(pooled) if one.statistic != "needed_seeds"]  # columns are bases


def combined(columns: Sequence[Terms]) -> Over | None:
    """The table of columns that are signed sums of readings, over the seeds and prompts that all readings have.

    None where they share no seed, or less than two prompts. Where it is not known what the lines of a column miss, it
    is taken to be what those of the others do.
    """
    tables = [read.table for _, read in chain(*columns)]
    seeds = sorted(set.intersection(*(set(table[0]) for table in tables)))
    shared = set.intersection(*(set(table[1]) for table in tables))
    prompts = [prompt for prompt in tables[0][1] if prompt in shared]
    if not seeds or len(prompts) < 2:
        return None
    values = [sum(sign * _column(read.table, seeds, prompts) for sign, read in terms) for terms in columns]
    known = [terms for terms in columns if all(read.left_out for _, read in terms)]
    missed = [curve_fit.summed([(read.sd, read.df) for _, read in terms]) for terms in known]
    sd = float(np.mean([sd for sd, _ in missed])) if missed else 0.0
    return seeds, np.stack(values, axis=1), Beside(sd=sd, df=min((df for sd, df in missed if sd > 0), default=1.0))


def _column(table: Table, seeds: Sequence[int], prompts: Sequence[str]) -> np.ndarray:
    """The mean over these seeds, of these prompts."""
    of_seed, of_prompt = ({name: i for i, name in enumerate(names)} for names in table[:2])
    return table[2][np.ix_([of_prompt[one] for one in prompts], [of_seed[one] for one in seeds])].mean(axis=1)


def _alike(drawn: Sequence[Curve], metric: str, at: float) -> Iterator[list[Read]]:
    """The readings at a level of each curve that all of several bases reach, base by base."""
    bases = list(dict.fromkeys(curve.base for curve in drawn))
    groups: dict[tuple, list[Read]] = {}
    for base in bases:
        inside = [curve for curve in drawn if curve.base == base]
        for read in readings.reads(inside, [at], metric, own=True).values():
            groups.setdefault((read.curve.method, read.curve.choices, read.curve.arm), []).append(read)
    yield from (alike for alike in groups.values() if len(alike) == len(bases) > 1)


def _value(alike: Sequence[Read]) -> Iterator[Result]:
    """The value over bases, and over what the curves were read: the widest of the bases' gaps."""
    over = combined([[(1, read)] for read in alike])
    if over is None:
        return
    seeds, table, beside = over
    e = intervals.crossed_interval(table, beside)
    if metrics_of(alike[0].curve.points)[alike[0].metric].kind == "share":
        e = intervals.crossed_fraction(table) if table.min() == table.max() else e  # all 0 or all 1
        e = replace(e, low=max(0.0, e.low), high=min(1.0, e.high))
    yield _result(alike, e, seeds, {})
    low, high = min(read.low for read in alike), max(read.high for read in alike)
    left_out = sum(read.left_out for read in alike) if all(read.left_out for read in alike) else 0
    gap: Further = {"statistic": "gap", "value": high - low, "low": low, "high": high, "n": left_out}
    yield _result(alike, e, seeds, gap)


def _difference(alike: Sequence[Read], subject: Sequence[Read]) -> tuple[Result, np.ndarray, Beside] | None:
    over = combined([[(1, read), (-1, other)] for read, other in zip(alike, subject, strict=True)])
    if over is None:
        return None
    seeds, table, beside = over
    what: Further = {"statistic": "difference", "versus": subject[0].curve.label}
    return _result(alike, intervals.crossed_interval(table, beside), seeds, what), table, beside


def _result(alike: Sequence[Read], e: intervals.Estimate, seeds: Sequence[int], what: Further) -> Result:
    first = alike[0]
    row = replace(first.curve, base=SEVERAL_BASES.join(read.curve.base for read in alike))
    where: Further = {"axis": first.curve.axis.name, "at": first.at}
    return result(row, first.metric, e, seeds, **where | what)
