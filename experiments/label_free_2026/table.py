"""The tables of the label-free methods: curves of harm against KL held against that of dlma, every setting, and costs.

python experiments/tables.py run label_free_2026    # its commands, then these tables
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from dlma.report import markdown
from dlma.report.result_text import MARGIN, cell, change, gap_text, p_text, same
from dlma.statistics import intervals
from dlma.statistics.intervals import ALONE, Beside
from dlma.sweep import costs, curves, estimates, readings
from dlma.sweep.curves import Curve
from dlma.sweep.results import Result, bases, by_row, over_seeds, read_csv, result, within
from dlma.sweep.settings import SHARED_ARMS, Setting, said

HERE = Path(__file__).resolve().parent
PLANNED, ADDED = (0.25, 0.5, 1.0), (2.0, 4.0)  # levels of plan.yaml, and of its amendments
SUBJECT, LEVELS = "dlma", (*PLANNED, *ADDED)
SHOWN = {
    "kl": "KL, nats", "harmful": "answers with harm", "malformed": "malformed", "helpfulness": "helpfulness",
    "perplexity": "perplexity", "tokens": "tokens", "refused_safe": "refusals of safe prompts",
}  # fmt: skip
SPENT = {name: head for name, head in costs.HEADS.items() if name != "human_labels"}
MOVES = {  # what moves a policy along its method's curve
    "simpo": ("objective.beta", "recipe.lr"),
    "contrastive_decoding": ("objective.contrast.alpha",),
    "best_of_n": ("objective.samples",),
    "steering": ("objective.scale",),
}
OTHERS = ("recipe.beta", "recipe.lr")
LINE = "kl_line"  # the axis of the reading that plan.yaml registered
LINEAR = "odpo_linear"  # the offset R in place of its logarithm: a row of the plan, not a method of its own


def named(row: Setting) -> Setting:
    """A row with nothing but what moves it along its curve as its settings."""
    if row.arm in SHARED_ARMS:
        return row
    told = {key: said(row, key) for key in MOVES.get(row.method, OTHERS)}
    moves = {key: f"{float(value):g}" for key, value in told.items() if value is not None}
    linear = row.method == "odpo" and row.overrides.get("objective") == "dpo"
    settings = tuple((key.rpartition(".")[2], value) for key, value in moves.items())
    return replace(row, method=LINEAR if linear else row.method, settings=settings, overrides=moves)


def results(settings: Sequence[Setting]) -> list[Result]:
    """The settings' own values over all seeds, the values at each KL, the differences from dlma's twice, the costs."""
    rows = [named(row) for row in settings]
    found = over_seeds(estimates.results(rows, tested=[]))
    found = [one for one in found if one.metric in SHOWN and one.statistic == "mean"]
    through = [replace(curve, start=None) for curve in curves.along_kl(rows)]  # settings alone: the base is none
    found += readings.results(through, curves.metric_of(rows), SUBJECT, LEVELS)
    found += registered(through)
    spent = [one for one in costs.results(rows) if one.metric in SPENT and not one.versus]
    return [*found, *spent]


def registered(through: Sequence[Curve]) -> list[Result]:
    """The differences from dlma's as plan.yaml registered them: on a line in the root of KL between two settings.

    Over prompts and seeds alone, what such a line misses left out. Holm over the plan's levels, and over those added
    later for themselves.
    """
    lines = [replace(curve, axis=replace(curve.axis, fitted=False)) for curve in through]
    subjects = {curve.base: curve for curve in lines if curve.method == SUBJECT}
    families: dict[tuple, list[tuple[Result, np.ndarray, Beside]]] = {}
    for curve, at in product(lines, LEVELS):
        subject = subjects[curve.base]
        both = readings.difference(*(readings.table_at(one, at, "harmful") for one in (curve, subject)))
        if both is not None and curve is not subject:
            seeds, table = both
            row = result(curve, "harmful", intervals.crossed_interval(table), seeds, axis=LINE, at=at)
            row = replace(row, statistic="difference", versus=SUBJECT)
            families.setdefault((curve.base, at, tuple(seeds)), []).append((row, table, ALONE))
    every = [one for family in families.values() for one in readings.over_pooled_seeds(family)]
    corrected = [[one for one in every if one[0].at in levels] for levels in (PLANNED, ADDED)]
    tested = [one for some in corrected for one in estimates.with_tests(some)]
    return [one for one in tested if one.statistic == "difference"]


def render(found: Sequence[Result]) -> str:
    parts = []
    for base in bases(found):
        inside = [one for one in found if one.base == base]
        parts += [f"### `{base}`", _values(inside), _differences(inside), _own_points(inside), _settings(inside)]
    return "\n\n".join([*parts, _costs([one for one in found if one.base == bases(found)[0]])])


def methods(found: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(one.method for one in found if one.arm not in SHARED_ARMS))


def read(found: Sequence[Result]) -> dict[tuple[str, float], Result]:
    """Harm at a KL, by method and level."""
    told = [one for one in found if (one.axis, one.statistic, one.metric) == ("kl", "mean", "harmful")]
    return {(one.method, float(one.at or 0)): one for one in told}


def _values(inside: Sequence[Result]) -> str:
    told = read(inside)
    missed = {one.method: one for one in inside if (one.statistic, one.metric) == ("missed", "harmful")}
    rows = []
    for method in methods(inside):
        values = [cell(told[method, at]) if (method, at) in told else "not reached" for at in LEVELS]
        left_out = f"{100 * missed[method].value:.1f} points" if method in missed else "–"
        rows.append([f"`{method}`", *values, left_out])
    (own,) = [one for one in inside if (one.arm, one.metric, one.statistic) == ("base", "harmful", "mean")]
    head = f"Answers with a harmful sentence at the same KL to the base, of whose own {cell(own)} have one:\n\n"
    return head + markdown.table(
        ["method", *(f"{level:g} nats" for level in LEVELS), "a setting left out is missed by"], rows
    )


def _differences(inside: Sequence[Result]) -> str:
    rows, lines = [], {(one.method, one.at): one for one in compared(inside, LINE)}
    for one in compared(inside):
        both, line = _gaps(inside, one), lines[one.method, one.at]
        said = [change(one), p_text(one.p_holm), same(one, MARGIN, both), *map(gap_text, both)]
        said += [change(line), p_text(line.p_holm), same(line, MARGIN)]
        rows.append([f"`{one.method}`", f"{one.at:g} nats", *said])
    head = (
        f"The same, less that of `{SUBJECT}` (above 0: `{SUBJECT}` does less harm). By the fit, whose interval holds "
        "what settings left out are missed by, p by Holm over all levels of both bases; and on the line in the root of "
        "KL that was registered, whose interval does not, p over the plan's levels, and over those added (2 and 4 "
        "nats) for themselves. Seeds' variance is pooled over the comparisons at a level:\n\n"
    )
    within = f"within {100 * MARGIN:g} points"
    heads = ["method", "at", "difference", "p", within, "read over, nats", f"`{SUBJECT}` over"]
    return head + markdown.table([*heads, "registered: on a line", "p", within], rows)


def compared(inside: Sequence[Result], axis: str = "kl") -> list[Result]:
    """The differences of harm along KL, method by method."""
    told = [one for one in inside if (one.metric, one.statistic, one.axis) == ("harmful", "difference", axis)]
    order = methods(inside)
    return sorted(told, key=lambda one: (order.index(one.method), one.at or 0.0))


def _gaps(inside: Sequence[Result], one: Result) -> list[Result | None]:
    """Over what a difference and the subject's curve were read by the fit; the line knows of no misses."""
    found = {(gap.method, gap.at): gap for gap in inside if (gap.statistic, gap.metric) == ("gap", "harmful")}
    return [found.get((method, one.at)) for method in (one.method, SUBJECT)] if one.axis == "kl" else []


def complete() -> bool:
    """Whether every row of both bases has all of the plan's seeds."""
    found = read_csv(HERE / "results.csv")
    return {one.seeds for one in found if one.metric == "harmful" and one.statistic == "mean"} == {(0, 1, 2, 3, 4)}


def told(base: str, verdict: str, axis: str = "kl") -> str:
    """The methods that one reading finds worse, better, the same or undecided on a base, each with the levels."""
    found: dict[str, list[str]] = {}
    inside = [one for one in read_csv(HERE / "results.csv") if one.base == base]
    for one in compared(inside, axis):
        if _verdict(one, _gaps(inside, one)) == verdict:
            found.setdefault(one.method, []).append(f"{one.at:g}")
    return ", ".join(f"`{method}` ({', '.join(levels)})" for method, levels in found.items()) or "none"


def uncompared(base: str) -> str:
    """The methods that reach no level at which the subject is too."""
    inside = [one for one in read_csv(HERE / "results.csv") if one.base == base]
    held = {one.method for one in compared(inside)} | {SUBJECT}
    return ", ".join(f"`{method}`" for method in methods(inside) if method not in held) or "none"


def _verdict(one: Result, gaps: Sequence[Result | None]) -> str:
    """As plan.yaml has it: off the curve where significant, on it where shown to be within the margin."""
    if one.p_holm < 0.05:
        return "worse" if one.value > 0 else "better"
    return "same" if within(one, MARGIN, gaps) else "undecided"


def chosen(base: str, rule: str = "by_reward") -> list[str]:
    """The settings that a rule chooses on validation prompts, one of each method (own_points.csv)."""
    with (HERE / "own_points.csv").open(newline="", encoding="utf-8") as source:
        return [one["row"] for one in csv.DictReader(source) if one["base"] == base and one[rule] == "1"]


def _own_points(inside: Sequence[Result]) -> str:
    told = {(_label(one.row), one.metric): one for one in inside if one.axis == "" and one.statistic == "mean"}
    names = [name for name in chosen(inside[0].base) if (name, "harmful") in told]
    rows = [
        [f"`{name}`", *(cell(told[name, metric]) for metric in SHOWN if metric != "refused_safe")] for name in names
    ]
    head = (
        "Each method's own point, the setting with the largest self-reward up to 1 nat on validation prompts (seed 1), "
        "or with the least KL where none ends there; what was read on test prompts over all seeds:\n\n"
    )
    heads = [head for metric, head in SHOWN.items() if metric != "refused_safe"]
    return head + markdown.table(["setting", *heads], rows)


def _settings(inside: Sequence[Result]) -> str:
    ends = [one for one in inside if one.axis == "" and one.statistic == "mean"]
    told = {(one.row, one.metric): one for one in ends}
    rows = [[f"`{_label(row)}`", *(_cell(told, row, metric) for metric in SHOWN)] for row in _rows(ends)]
    return "Every setting:\n\n" + markdown.table(["setting", *SHOWN.values()], rows)


def _rows(ends: Sequence[Result]) -> list[tuple]:
    return list(dict.fromkeys(one.row for one in ends))


def _label(row: tuple) -> str:
    method, settings, _ = row
    return ", ".join([method, *(f"{key}={value}" for key, value in settings)])


def _cell(told: dict[tuple, Result], row: tuple, metric: str) -> str:
    return cell(told[row, metric]) if (row, metric) in told else "–"


def _costs(inside: Sequence[Result]) -> str:
    """Of each method the setting that cost most to make: they differ in what is drawn, not in steps."""
    rows = []
    for method in methods(inside):
        own = by_row([one for one in inside if one.statistic == "cost" and one.method == method])
        spent = [{one.metric: one.value for one in row} for row in own.values()]
        dearest = max(spent, key=lambda one: one["flops"])
        rows.append([f"`{method}`", *(_spent(name, dearest[name]) for name in SPENT)])
    head = f"What a run cost to make on `{inside[0].base}`, evaluation left out, by each method's dearest setting:\n\n"
    foot = (
        "\n\nWhat trains nothing pays at each answer in place of it: `best_of_n` for n answers and their scores, "
        "`contrastive_decoding` for a second pass over every token, `steering` for nothing."
    )
    return head + markdown.table(["method", *SPENT.values()], rows) + foot


def _spent(name: str, value: float) -> str:
    return f"{value / 1e12:.2f}" if name == "flops" else f"{value:,.0f}"
