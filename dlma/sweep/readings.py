"""What a curve's value is at a KL, or at operations, and how two curves differ there.

Along KL a curve is fitted seed by seed in the root of KL, along which a policy's gain is close to straight (Gao et al.
2022, arXiv 2210.10760; a line in KL itself lies far above it): monotone, shares as their logits, since a share bends
towards its bounds (dlma/statistics/curve_fit.py). What is read beside it, such as perplexity, lies on lines between two
settings, on the same scales. Along operations all is on lines in their logarithm.

The interval is over prompts and seeds and counts the error in KL too (operations are counted, not estimated): a prompt
adds the derivatives of the value by every setting's height and place times its part in them (the delta method). It also
holds what the line between two settings misses, as the settings left out in turn say (`bend`, of all curves of a base
those with a room like the reading's own), and of differences from a trained baseline the seeds' variance is pooled over
all of them (pooled_seeds.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlma.metrics.summary import are_shared
from dlma.statistics import curve_fit, intervals, pooled_seeds
from dlma.statistics.curve_fit import Bend, HeightScale
from dlma.statistics.intervals import Beside
from dlma.sweep.curves import PERPLEXITY, Curve, budgets_of, values_of
from dlma.sweep.estimates import common_prompts, measured, with_tests
from dlma.sweep.results import INTERMEDIATE, Further, Result, result
from dlma.sweep.settings import metrics_of

CURVED = ("mean", "share")  # kinds of metrics whose curves are read
Table = tuple[list[int], list[str], np.ndarray]  # seeds, prompts, values (prompts, seeds)


@dataclass(frozen=True)
class Read:
    """A curve's value at a place: the table whose mean it is, and what the settings around it add.

    low, high: the places of the two settings between which it was read, as means over seeds
    sd: what the line between them misses, on the table's scale; left_out: by how many settings that is known; df: on
        how many degrees of freedom
    """

    curve: Curve
    at: float
    metric: str
    table: Table
    low: float
    high: float
    sd: float
    left_out: int
    df: float


def results(
    drawn: Sequence[Curve], metric: str | None, against: str | None, levels: Sequence[float] | None
) -> list[Result]:
    """The curves' values at each place with the gap they were read over, what the fit misses, and differences.

    Differences are from the like curve of `against`; Holm over those of the curves' own metric, and over the others.
    levels: None: budgets that are chosen (`budgets_of`), base by base
    """
    found: list[Result] = []
    gaps: list[tuple[Read, Read]] = []
    points = [row for curve in drawn for row in curve.points]
    if not drawn or metric is None or metrics_of(points)[metric].kind not in CURVED:
        return []
    for base in dict.fromkeys(curve.base for curve in drawn):
        inside = [curve for curve in drawn if curve.base == base]
        places = budgets_of(inside) if levels is None else levels
        for name in dict.fromkeys((metric, *inside[0].axis.beside)):
            read_at = reads(inside, places, name, own=name == metric)
            found += [one for read in read_at.values() for one in told(read)]
            found += [one for curve in inside for one in _missed(curve, name, own=name == metric)]
            both = [(read, held_against(read, read_at, inside, against)) for read in read_at.values()]
            gaps += [(read, other) for read, other in both if other]
    return (
        found
        + differences([both for both in gaps if both[0].metric == metric])
        + differences([both for both in gaps if both[0].metric != metric])
    )


def reads(inside: Sequence[Curve], places: Sequence[float], metric: str, *, own: bool) -> dict[tuple, Read]:
    """By a curve's `id` and place, in the order of the curves; what is not reached is left out.

    own: whether the metric is the curves' own, which is fitted, or one that is read beside it
    """
    means = {id(curve): _means(curve, metric) for curve in inside}
    fitted = own and inside[0].axis.fitted
    bent = curve_fit.bend([(x, z) for x, z, _ in filter(None, means.values())], monotone=fitted)
    found = {}
    for curve in inside:
        for at in places:
            table = table_at(curve, at, metric, own=own)
            if table is not None and (mean := means[id(curve)]) is not None:
                found[id(curve), at] = _read(curve, at, metric, table, mean, bent, fitted)
    return found


def _read(curve: Curve, at: float, metric: str, table: Table, means: tuple, bent: Bend, fitted: bool) -> Read:
    places, heights, scale = means
    reading = curve_fit.read(places, heights, curve.axis.scale(at), monotone=fitted)
    if reading is None:  # every seed reaches it, the means do not: but for a last digit what is missed is not known
        end = math.isclose(curve.axis.scale(at), places[-1], rel_tol=1e-9)
        return Read(curve, at, metric, table, at, at, 0.0, bent.count if end else 0, 1.0)
    low, high = (curve.axis.unscale(places[reading.first + i]) for i in (0, 1))
    sd, df = bent.error(reading)
    return Read(curve, at, metric, table, low, high, float(scale.slope(reading.height)) * sd, bent.count, df)


def _means(curve: Curve, metric: str) -> tuple[list[float], np.ndarray, HeightScale] | None:
    """The curve's settings as means over seeds: places and heights on their scales, ascending."""
    known = _prompts(curve, metric)
    if known is None:
        return None
    own, moved = known
    scale = _scale(curve, metric, len(own))
    points = []
    for row in curve.every:
        places = [curve.axis.place(row, seed, moved)[0] for seed in curve.seeds]
        heights = [values_of(row.arms[seed], own, metric).mean() for seed in curve.seeds]
        points.append((curve.axis.scale(float(np.mean(places))), float(scale.to(np.mean(heights)))))
    points.sort()
    return [x for x, _ in points], np.array([z for _, z in points]), scale


def _scale(curve: Curve, metric: str, prompts: int) -> HeightScale:
    share = metrics_of(curve.points)[metric].kind == "share"
    return HeightScale(prompts) if share and curve.axis.fitted else HeightScale()


def _prompts(curve: Curve, metric: str) -> tuple[list[str], list[str]] | None:
    """The prompts of a metric and those of the places, which are the same unless the metric has items of its own."""
    arms = [row.arms[seed] for row in curve.every for seed in curve.seeds]
    names = (metric, *curve.axis.needs)
    if not arms or any(name not in arm.numbers for arm in arms for name in names):
        return None
    shared = {name: common_prompts(name, arms) for name in names}
    if any(not are_shared(len(common), (measured(name, arm) for arm in arms)) for name, common in shared.items()):
        return None
    own, *needed = shared.values()
    moved = needed[0] if needed else own
    placed = set(moved)
    both = [prompt for prompt in own if prompt in placed]
    own, moved = (both, both) if both else (own, moved)
    return None if min(len(own), len(moved)) < 2 else (own, moved)


def table_at(curve: Curve, at: float, metric: str, *, own: bool = True) -> Table | None:
    """The table whose mean is the curve's value at a place; None where it is not reached.

    Not reached: some seed has no two neighbours around that place, or too few prompts are shared. Of a perplexity it is
    the logarithm. own: whether it is the curve's own metric, which is fitted, or one that is read beside it
    """
    known = _prompts(curve, metric)
    if known is None:
        return None
    every = [_column(curve, seed, *known, at, metric, own) for seed in curve.seeds]
    columns = [column for column in every if column is not None]
    if len(columns) < len(every):
        return None
    prompts = known[0] if known[0] == known[1] else known[0] + known[1]
    return curve.seeds, prompts, np.stack(columns, axis=1)


def _column(
    curve: Curve, seed: int, own: list[str], moved: list[str], at: float, metric: str, of_curve: bool
) -> np.ndarray | None:
    """What each prompt adds to the value at this place, for one seed."""
    points = [(*curve.axis.place(row, seed, moved), values_of(row.arms[seed], own, metric)) for row in curve.every]
    points.sort(key=lambda one: one[0])
    scale, means = _scale(curve, metric, len(own)), np.array([y.mean() for _, _, y in points])
    heights = scale.to(means)
    places = [curve.axis.scale(x) for x, _, _ in points]
    found = curve_fit.read(places, heights, curve.axis.scale(at), monotone=of_curve and curve.axis.fitted)
    if found is None:
        return None
    slope, i, w = float(scale.slope(found.height)), found.first, found.share
    by_height = slope * found.weights / scale.slope(heights) @ np.stack([y - y.mean() for _, _, y in points])
    by_place = -slope * found.slope * ((1 - w) * points[i][1] + w * points[i + 1][1])
    value = scale.back(found.height)
    if own == moved:
        return value + by_height + by_place
    n = len(own) + len(moved)  # two samples in one: each part's mean keeps its variance
    return value + np.concatenate([n / len(own) * by_height, n / len(moved) * by_place * np.ones(len(moved))])


def told(read: Read) -> Iterator[Result]:
    seeds, _, table = read.table
    where: Further = {"axis": read.curve.axis.name, "at": read.at}
    e = intervals.crossed_interval(table, Beside(sd=read.sd, df=read.df))
    shown = intervals.exponential(e) if read.metric == PERPLEXITY else e
    if metrics_of(read.curve.points)[read.metric].kind == "share":
        shown = replace(shown, low=max(0.0, shown.low), high=min(1.0, shown.high))
    yield result(read.curve, read.metric, shown, seeds, **where)
    gap: Further = {
        **where,
        "statistic": "gap",
        "value": read.high - read.low,
        "low": read.low,
        "high": read.high,
        "n": read.left_out,
    }
    yield result(read.curve, read.metric, shown, seeds, **gap)


def _missed(curve: Curve, metric: str, *, own: bool) -> Iterator[Result]:
    """By how much a setting of the curve is missed when it is left out: root of the mean square, in the metric.

    Of a perplexity it is that of its logarithm, which is the relative one.
    """
    means = _means(curve, metric)
    if means is None:
        return
    places, heights, scale = means
    left = curve_fit.left_out(places, heights, monotone=own and curve.axis.fitted)
    if left:
        rms = math.sqrt(np.mean([(scale.back(z) - scale.back(heights[i])) ** 2 for i, z, _ in left]))
        e = intervals.Estimate(rms, math.nan, math.nan, len(left), len(curve.seeds))
        yield result(curve, metric, e, curve.seeds, statistic="missed", axis=curve.axis.name)


def held_against(read: Read, reads: dict[tuple, Read], inside: Sequence[Curve], against: str | None) -> Read | None:
    """The reading at the same place that one is held against: of the like curve of `against`, where that gets there."""
    subject = like(read.curve, inside, against)
    return None if subject is None else reads.get((id(subject), read.at))


def differences(pairs: Sequence[tuple[Read, Read]]) -> list[Result]:
    """Each reading less the other one, where they share prompts and seeds; what is read at one place is one family."""
    compared: dict[tuple, list[tuple[Result, np.ndarray, Beside]]] = {}
    for one, other in pairs:
        both = difference(one.table, other.table)
        if both is None:
            continue
        what: Further = {"versus": other.curve.label, "axis": one.curve.axis.name, "at": one.at}
        what["statistic"] = "ratio" if one.metric == PERPLEXITY else "difference"
        sd, df = curve_fit.summed([(one.sd, one.df), (other.sd, other.df)])
        further = Beside(sd=sd, df=df)
        row = result(one.curve, one.metric, intervals.crossed_interval(both[1]), both[0], **what)
        family = (row.base, row.metric, row.at, row.versus, row.seeds)
        compared.setdefault(family, []).append((row, both[1], further))
    return with_tests([one for family in compared.values() for one in over_pooled_seeds(family)])


def over_pooled_seeds(family: list[tuple[Result, np.ndarray, Beside]]) -> Iterator[tuple[Result, np.ndarray, Beside]]:
    """The same with the seeds' variance pooled over all of them, and their intervals with all of that."""
    seeds = pooled_seeds.pooled([table for _, table, _ in family])
    for row, table, further in family:
        beside = replace(further, seed=seeds.seed, seed_df=seeds.seed_df)
        e = intervals.crossed_interval(table, beside)
        shown = intervals.exponential(e) if row.statistic == "ratio" else e
        yield replace(row, value=shown.value, low=shown.low, high=shown.high), table, beside


def like(curve: Curve, inside: Sequence[Curve], against: str | None) -> Curve | None:
    """The curve of a name, a method or a setting; of several, and of ways, the one with equal choices.

    The only one of a method is taken unless it made another choice under a key that both have.
    """
    named = [other for other in inside if other.arm == curve.arm and other.is_named(against)]
    if curve in named:
        return None
    if len(named) > 1 or curve.arm == INTERMEDIATE:
        named = [other for other in named if other.choices == curve.choices]
    mine = dict(curve.choices)
    named = [
        other
        for other in named
        if against != other.method or all(mine.get(key, value) == value for key, value in other.choices)
    ]
    return named[0] if len(named) == 1 else None


def difference(first: Table | None, second: Table | None) -> tuple[list[int], np.ndarray] | None:
    """(seeds, first minus second) over the seeds and prompts that both tables have."""
    if first is None or second is None:
        return None
    seeds = [seed for seed in first[0] if seed in second[0]]
    kept = set(second[1])
    prompts = [prompt for prompt in first[1] if prompt in kept]
    if not seeds or len(prompts) < 2:
        return None
    one, two = (
        table[np.ix_([names.index(p) for p in prompts], [of.index(s) for s in seeds])]
        for of, names, table in (first, second)
    )
    return seeds, one - two
