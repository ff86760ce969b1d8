"""The tables of the noise: margins on wrong labels, read at the same KL along every training's own way.

python experiments/tables.py run margin_noise    # its commands, then these tables
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dlma.report import markdown
from dlma.report.result_text import MARGIN, cell, change, gap_text, p_text, same
from dlma.sweep import curves, estimates, readings
from dlma.sweep.results import Result, bases, by_row, over_seeds
from dlma.sweep.settings import Setting, said

SUBJECT, LEVELS = "dlma", (0.2, 0.5, 1.0)
RATE = 9.0e-5  # of the plan; three times as much was added for the reach
FLIPS = "labels.flips"
KINDS = {  # by method and labels, as the tables name them
    "rlcd": "no margin",
    "dlma": "R",
    "dlma_shuffled": "R shuffled",
    "kept": "no margin, |R| above 0.5 nats",
    "rlcd fast": "no margin, 3 times the learning rate",
    "dlma_shuffled fast": "R shuffled, 3 times the learning rate",
    "kept fast": "no margin, |R| above 0.5 nats, 3 times the learning rate",
    "sign_none": "sign of R, no margin",
    "sign": "sign of R, |R|",
    "odpo": "sign of R, log |R|",
}
BY_SIGN = ("sign_none", "sign", "odpo")  # of the construction's labels nothing is left
SHOWN = ("harmful", "kl")


def named(row: Setting) -> Setting:
    """A row with its margin as the method and the share of labels turned round as its only choice."""
    if row.arm in ("base", "prompted"):
        return row
    kind = row.overrides.get("labels", row.method)
    kind = f"{kind} fast" if float(said(row, "recipe.lr") or RATE) > RATE else kind
    share = f"{float(said(row, FLIPS) or 0):g}"
    return replace(row, method=kind, settings=(("flips", share),), overrides={FLIPS: share})


def results(settings: Sequence[Setting]) -> list[Result]:
    """The ends, the values at each KL, and the differences from R's: of the planned rows, then of those by R's sign."""
    rows = [named(row) for row in settings]
    found = over_seeds(estimates.results([row for row in rows if row.final], tested=[]))
    found = [one for one in found if one.metric in SHOWN and one.statistic == "mean"]
    planned = [row for row in rows if row.method not in BY_SIGN]
    beside = [row for row in rows if row.method in (*BY_SIGN, "base") or _unturned(row)]
    found += readings.results(curves.along_kl(planned, []), curves.metric_of(rows), SUBJECT, LEVELS)
    again = readings.results(curves.along_kl(beside, []), curves.metric_of(rows), SUBJECT, LEVELS)
    return [one for one in (*found, *(one for one in again if one.method in BY_SIGN)) if one.metric in SHOWN]


def _unturned(row: Setting) -> bool:
    return row.method == SUBJECT and row.overrides[FLIPS] == "0"


def render(found: Sequence[Result]) -> str:
    """Values and differences at each KL, and the ends, base by base."""
    return "\n\n".join(f"### `{base.removeprefix('lab-')}`\n\n{_base(found, base)}" for base in bases(found))


def _base(found: Sequence[Result], base: str) -> str:
    inside = [one for one in found if one.base == base and one.metric == "harmful"]
    return "\n\n".join((_values(inside), _differences(inside), _ends(found, base)))


def turned(one: Result) -> str:
    """The share of labels turned round, of a row."""
    return "any" if one.method in BY_SIGN else f"{float(dict(one.settings).get('flips', 0)) * 100:.0f} %"


def _values(inside: Sequence[Result]) -> str:
    read = {(one.method, turned(one), one.at): one for one in inside if (one.axis, one.statistic) == ("kl", "mean")}
    rows = []
    for method, share in _in_order(inside):
        values = [cell(read[method, share, at]) if (method, share, at) in read else "not reached" for at in LEVELS]
        rows.append([KINDS[method], share, *values])
    head = "Answers with a harmful sentence at the same KL to the base:\n\n"
    return head + markdown.table(["margin", "labels turned round", *(f"{level:g} nats" for level in LEVELS)], rows)


def _in_order(inside: Sequence[Result]) -> list[tuple[str, str]]:
    """Margins and shares, in the order of KINDS."""
    there = dict.fromkeys((one.method, turned(one)) for one in inside if one.method in KINDS)
    return sorted(there, key=lambda row: list(KINDS).index(row[0]))


def _differences(inside: Sequence[Result]) -> str:
    gaps = {(one.method, turned(one), one.at): one for one in inside if one.statistic == "gap"}
    rows = []
    for one in compared(inside):
        own = gaps.get((one.method, turned(one), one.at))
        both = [own, gaps.get((SUBJECT, "0 %" if one.method in BY_SIGN else turned(one), one.at))]
        said = [change(one), p_text(one.p_holm), same(one, MARGIN, both), gap_text(own)]
        rows.append([KINDS[one.method], turned(one), f"{one.at:g} nats", *said])
    head = (
        "The same, less that of R as margin on the same labels, or on unturned ones for labels by R's sign (above 0: "
        "R as margin does less harm); p by Holm over the comparisons of both bases, those by R's sign apart:\n\n"
    )
    within = f"within {100 * MARGIN:g} points"
    heads = ["margin", "labels turned round", "at", "difference", "p", within, "read over, nats"]
    return head + markdown.table(heads, rows)


def compared(inside: Sequence[Result]) -> list[Result]:
    """The differences along KL, row by row."""
    rows = by_row(one for one in inside if (one.metric, one.statistic) == ("harmful", "difference")).values()
    return sorted((one for row in rows for one in row), key=lambda one: list(KINDS).index(one.method))


def _ends(found: Sequence[Result], base: str) -> str:
    ends = [one for one in found if one.base == base and one.axis == "" and one.statistic == "mean"]
    told = {(one.method, turned(one), one.metric): one for one in ends}
    rows = [
        [KINDS[method], share, *(cell(told[method, share, metric]) for metric in SHOWN)]
        for method, share in _in_order(ends)
    ]
    (own,) = [one for one in ends if (one.arm, one.metric) == ("base", "harmful")]
    head = f"The ends; of the base's own answers {cell(own)} have harm:\n\n"
    return head + markdown.table(["margin", "labels turned round", "answers with harm", "KL, nats"], rows)
