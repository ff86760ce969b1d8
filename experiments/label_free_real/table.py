"""The tables of label_free_real: each row at its own point, held against dlma's own way at the row's KL.

python experiments/tables.py run label_free_real    # its commands, then these tables
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dlma.report import markdown
from dlma.report.result_text import cell, change, gap_text, p_text
from dlma.statistics import intervals
from dlma.statistics.intervals import Beside, Estimate
from dlma.sweep import costs, curves, estimates, readings
from dlma.sweep.curves import Curve, values_of
from dlma.sweep.results import Result, over_seeds, read_csv, result, within
from dlma.sweep.settings import SHARED_ARMS, Setting, said

HERE = Path(__file__).resolve().parent
SUBJECT, METRIC, OWN = "dlma", "sentiment", "own_kl"
MARGIN = 0.06  # plan.yaml: 3 % of the range
LINEAR, FAR = "odpo_linear", "dlma_far"  # ODPO with R as it is; dlma at twice the rate, which draws its way on
RATE = 1.0e-4  # of all other rows
UNCOMPARED = (SUBJECT, FAR, LINEAR)  # of the last, no pair has an R against its construction: it is dlma's own training
SHOWN = {
    "kl": "KL, nats", METRIC: "sentiment", "self_reward": "R (self-reported)", "perplexity": "perplexity",
    "distinct_2": "distinct-2", "refusal": "refusals", "tokens": "tokens",
}  # fmt: skip
SPENT = {name: head for name, head in costs.HEADS.items() if name != "human_labels"}
STEP = 1e-3  # of a KL: over which the slope of the way is taken
Compared = tuple[Result, np.ndarray, Beside]


def named(row: Setting) -> Setting:
    """A row by its method alone; the two that have a second setting have it by a name of its own."""
    if row.arm in SHARED_ARMS:
        return row
    linear = row.method == "odpo" and row.overrides.get("objective") == "dpo"
    far = row.method == SUBJECT and float(said(row, "recipe.lr") or RATE) > RATE
    return replace(row, method=LINEAR if linear else FAR if far else row.method, settings=(), overrides={})


def results(settings: Sequence[Setting]) -> list[Result]:
    """The ends, each less dlma at its KL with the gap it was read over, what dlma's way misses, and the costs.

    The seeds' variance is pooled as if dlma's error were the same at every KL, which is too wide where it is not.
    """
    rows = [named(row) for row in settings]
    ends = [row for row in rows if row.final]
    found = [one for one in over_seeds(estimates.results(ends, tested=[])) if one.metric in SHOWN]
    found = [one for one in found if one.statistic == "mean"]
    ways = [curve for curve in curves.along_kl(rows, []) if any(not row.final for row in curve.points)]
    (way,) = [curve for curve in ways if curve.method == SUBJECT]
    farther = [curve for curve in ways if curve.method == FAR]
    way = replace(way, points=[row for curve in (way, *farther) for row in curve.points])
    ways = [way, *(curve for curve in ways if curve.method not in (SUBJECT, FAR))]
    missed = [one for one in readings.results(ways, METRIC, None, []) if one.metric == METRIC]
    own = [row for row in ends if row.arm not in SHARED_ARMS and row.method not in UNCOMPARED]
    read = [both for row in own if (both := _beside(row, way, ways))]
    groups: dict[tuple, list[Compared]] = {}
    for one, _ in read:
        groups.setdefault(one[0].seeds, []).append(one)
    family = [one for group in groups.values() for one in readings.over_pooled_seeds(group)]
    spent = [one for one in costs.results(ends) if one.metric in SPENT and not one.versus]
    return [*found, *estimates.with_tests(family), *(gap for _, gap in read), *missed, *spent]


def _beside(row: Setting, way: Curve, ways: Sequence[Curve]) -> tuple[Compared, Result] | None:
    """A row's end less dlma's way at the row's own KL, seed by seed; None where some seed is beyond the way's end.

    With y and k what a prompt has, K the mean of k and c the way, a prompt adds y - c(K) - c'(K) (k - K). What the way
    misses is taken at the mean of the rows' K over seeds, or at the nearest place that every seed of the way reaches.
    """
    seeds = [seed for seed in way.seeds if seed in row.runs]
    columns = [_column(row, _of_seed(way, seed), seed) for seed in seeds]
    reach = min(max(_kl(point, seed) for point in way.points) for seed in way.seeds)
    at = min(reach, float(np.mean([_kl(row, seed) for seed in seeds])))
    mean = readings.reads(ways, [at], METRIC, own=True).get((id(way), at))
    known = [column for column in columns if column is not None]
    if not seeds or len(known) < len(columns) or mean is None:
        return None
    table, beside = np.stack(known, axis=1), Beside(sd=mean.sd, df=mean.df)
    of = replace(way, method=row.method)
    head = {"versus": SUBJECT, "axis": OWN}
    one = result(of, METRIC, intervals.crossed_interval(table, beside), seeds, statistic="difference", **head)
    width = Estimate(mean.high - mean.low, mean.low, mean.high, mean.left_out, len(seeds))
    return (one, table, beside), result(of, METRIC, width, seeds, statistic="gap", **head)


def _kl(row: Setting, seed: int) -> float:
    arm = row.arms[seed]
    return float(np.nanmean(values_of(arm, arm.prompts, "kl")))


def _of_seed(way: Curve, seed: int) -> Curve:
    only = [replace(row, runs={seed: row.runs[seed]}) for row in way.points]
    return replace(way, points=only, start=replace(way.start, runs={seed: way.start.runs[seed]}))


def _column(row: Setting, way: Curve, seed: int) -> np.ndarray | None:
    """What each prompt adds to the difference in one seed."""
    arm = row.arms[seed]
    at = _kl(row, seed)
    places = (at, at * (1 - STEP), at * (1 + STEP))
    there, below, above = (readings.table_at(way, place, METRIC) for place in places)
    if there is None or below is None:
        return None
    far, step = (above, 2 * STEP * at) if above else (there, STEP * at)
    slope = float(far[2].mean() - below[2].mean()) / step
    y, k = (values_of(arm, there[1], metric) for metric in (METRIC, "kl"))
    return y - there[2][:, 0] - slope * (k - k.mean())


def render(found: Sequence[Result]) -> str:
    return "\n\n".join([_own_points(found), _ends(found), _costs(found)])


def compared(found: Sequence[Result]) -> list[Result]:
    """The differences from dlma at the rows' own KL."""
    return [one for one in found if (one.axis, one.statistic) == (OWN, "difference")]


def verdict(one: Result, gap: Result) -> str:
    """As plan.yaml has it: off the curve where significant, on it where shown to be within the margin.

    gap: what it was read over; where nothing says what a line there misses, nothing is shown to be the same
    """
    if one.p_holm < 0.05:
        return "better" if one.value > 0 else "worse"
    return "the same" if within(one, MARGIN, [gap]) else "undecided"


def told(wanted: str) -> str:
    """The rows of one verdict, each with its KL, for the page."""
    found = read_csv(HERE / "results.csv")
    kls = {one.method: one.value for one in found if (one.metric, one.statistic, one.arm) == ("kl", "mean", "aligned")}
    gaps = {one.method: one for one in found if (one.axis, one.statistic) == (OWN, "gap")}
    less = {one.method: verdict(one, gaps[one.method]) for one in compared(found)}
    found_of = {method: less.get(method, "beyond") for method in _methods(found) if method not in UNCOMPARED}
    return ", ".join(f"`{method}` ({kls[method]:.1f})" for method, one in found_of.items() if one == wanted) or "none"


def _own_points(found: Sequence[Result]) -> str:
    means = {(one.method, one.arm, one.metric): one for one in found if one.statistic == "mean"}
    gaps = {one.method: one for one in found if (one.axis, one.statistic) == (OWN, "gap")}
    less = {one.method: one for one in compared(found)}
    rows = []
    for method in _methods(found):
        row = [f"`{method}`", *(cell(means.get((method, "aligned", metric))) for metric in ("kl", METRIC))]
        one = less.get(method)
        beyond = "" if method in UNCOMPARED else "beyond its end"
        words = [change(one), p_text(one.p_holm), verdict(one, gaps[method])] if one else [beyond, "", ""]
        rows.append([*row, *words, gap_text(gaps.get(method)) if one else ""])
    missed = [one for one in found if one.statistic == "missed" and one.method == SUBJECT]
    head = (
        f"Each row's own point, and its sentiment less that of `{SUBJECT}` at the same KL, off the way of its training "
        f"(above 0: more than `{SUBJECT}`); p by Holm over all rows; the same: within {MARGIN:g}; seeds' variance "
        "is pooled over the rows. "
        + " ".join(f"A policy of that way that is left out is missed by {one.value:.3f}." for one in missed)
    )
    less_of, over = f"less `{SUBJECT}` at its KL", f"`{SUBJECT}` over, nats"
    heads = ["method", "KL, nats", "sentiment", less_of, "p", "verdict", over]
    return f"{head.strip()}\n\n" + markdown.table(heads, rows)


def _methods(found: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(one.method for one in found if one.arm == "aligned" and one.metric in SHOWN))


def _ends(found: Sequence[Result]) -> str:
    means = [one for one in found if one.statistic == "mean" and not one.axis]
    by_row = {(one.method, one.arm, one.metric): one for one in means}
    rows = [
        [f"`{arm if arm in SHARED_ARMS else method}`", *(cell(by_row.get((method, arm, metric))) for metric in SHOWN)]
        for method, arm in dict.fromkeys((one.method, one.arm) for one in means)
    ]
    return "All that was read there:\n\n" + markdown.table(["row", *SHOWN.values()], rows)


def _costs(found: Sequence[Result]) -> str:
    rows = [[f"`{method}`", *_spent(found, method)] for method in _methods(found)]
    return "What a run cost to make, evaluation left out:\n\n" + markdown.table(["method", *SPENT.values()], rows)


def _spent(found: Sequence[Result], method: str) -> Iterator[str]:
    own = {one.metric: one.value for one in found if one.statistic == "cost" and one.method == method}
    for name in SPENT:
        value = own.get(name, math.nan)
        yield "–" if math.isnan(value) else f"{value / 1e12:.1f}" if name == "flops" else f"{value:,.0f}"
