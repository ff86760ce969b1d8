"""What every row of a sweep cost, as results of the statistic "cost": means over its runs, without an interval.

n is the number of runs. FLOPs have a second result, `versus` another row: the quotient to the baseline's operations, or
where that cost nothing, to those of the cheapest setting that cost something.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from dlma.cost.spent import Costs
from dlma.statistics.intervals import Estimate
from dlma.sweep.results import Result, by_row, result
from dlma.sweep.settings import SHARED_ARMS, Setting, baseline_of

HEADS = {
    "human_labels": "human labels",
    "judge_calls": "judge calls",
    "tokens_sampled": "tokens sampled",
    "tokens_scored": "tokens scored",
    "tokens_reference": "tokens of the reference",
    "tokens_trained": "tokens trained on",
    "flops": "TFLOP",
}


def results(rows: Sequence[Setting], baseline: str | None = None) -> list[Result]:
    """The costs of every row, as far as its runs say; nothing where no run says any."""
    if not any(cell.costs for row in rows for cell in row.runs.values()):
        return []
    found = []
    for row in rows:
        means = {name: mean(row, name) for name in HEADS}
        found += [_result(row, name, value) for name, value in means.items() if value is not None]
        own, measure = means["flops"], _measure(row, rows, baseline)
        if own is not None and measure is not None:
            flops, other = measure
            found.append(_result(row, "flops", own / flops, other.label))
    return found


def _result(row: Setting, name: str, value: float, versus: str = "") -> Result:
    e = Estimate(value, math.nan, math.nan, len(row.runs))
    return result(row, name, e, row.runs, statistic="cost", versus=versus)


def of_run(row: Setting, seed: int) -> Costs | None:
    """The costs of one run of a row; the base's own answers and the prompted base's cost nothing to make."""
    return Costs() if row.arm in SHARED_ARMS else row.runs[seed].costs


def mean(row: Setting, name: str) -> float | None:
    """A cost over the runs of a row; None unless every run says it."""
    each = [of_run(row, seed) for seed in row.runs]
    values = [dataclasses.asdict(one)[name] for one in each if one is not None]
    if len(values) < len(each) or None in values:
        return None
    return sum(values) / len(values)


def _measure(row: Setting, rows: Sequence[Setting], baseline: str | None) -> tuple[float, Setting] | None:
    """What the row's operations are divided by, and of which row that is."""
    inside = [(flops, other) for other in rows if other.base == row.base and (flops := mean(other, "flops"))]
    named = row if baseline in (row.label, row.method) else baseline_of(row, rows, baseline)
    others = [other for _, other in inside]
    if named in others:
        return inside[others.index(named)]
    return min(inside, key=lambda one: one[0], default=None)


def table(found: Iterable[Result]) -> tuple[list[str], list[list[str]]] | None:
    """Heads and rows of the table of costs, from the results of one base; None where there are none."""
    spent = [one for one in found if one.statistic == "cost"]
    lines = []
    for own in by_row(spent).values():
        cells = {one.metric: one for one in own if not one.versus}
        over = [f"×{one.value:.2f}" for one in own if one.versus]
        lines.append([own[0].label, *(_cell(cells.get(name), name) for name in HEADS), *(over or ["–"])])
    names = {one.versus for one in spent if one.versus}
    last = f"FLOPs over {names.pop()}" if len(names) == 1 else "FLOPs over the baseline"
    return (["method", *HEADS.values(), last], lines) if lines else None


def _cell(one: Result | None, name: str) -> str:
    if one is None:
        return "–"
    return f"{one.value / 1e12:.3g}" if name == "flops" else f"{one.value:,.0f}"
