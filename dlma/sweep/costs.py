"""What every row of a sweep cost, as rows of results.csv: means over its runs, without an interval.

The metric of a row is "cost human labels" and the like; n is the number of runs. "cost flops over X" is the quotient to
the baseline's operations, or where that cost nothing, to those of the cheapest setting that cost something.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from dlma.cost.spent import Costs
from dlma.sweep.estimates import Result, seeds_of
from dlma.sweep.settings import SHARED_ARMS, Setting, baseline_of

PREFIX, OVER = "cost ", "cost flops over "
HEADS = {
    "human_labels": "human labels",
    "judge_calls": "judge calls",
    "tokens_sampled": "tokens sampled",
    "tokens_scored": "tokens scored",
    "tokens_reference": "tokens of the reference",
    "tokens_trained": "tokens trained on",
    "flops": "TFLOP",
}
NAMES = {name: PREFIX + name.replace("_", " ") for name in HEADS}


def results(rows: Sequence[Setting], baseline: str | None = None) -> list[Result]:
    """The costs of every row, as far as its runs say; nothing where no run says any."""
    if not any(cell.costs for row in rows for cell in row.runs.values()):
        return []
    found = []
    for row in rows:
        means = {name: mean(row, name) for name in HEADS}
        found += [_result(row, NAMES[name], value) for name, value in means.items() if value is not None]
        other = _measure(row, rows, baseline)
        if other is not None and means["flops"] is not None:
            found.append(_result(row, OVER + other.label, means["flops"] / mean(other, "flops")))
    return found


def _result(row: Setting, metric: str, value: float) -> Result:
    return Result(row.label, row.base, seeds_of(row.runs), metric, len(row.runs), value, math.nan, math.nan)


def of_run(row: Setting, seed: int) -> Costs | None:
    """The costs of one run of a row; the base's own answers and the prompted base's cost nothing to make."""
    return Costs() if row.arm in SHARED_ARMS else row.runs[seed].costs


def mean(row: Setting, name: str) -> float | None:
    """A cost over the runs of a row; None unless every run says it."""
    each = [of_run(row, seed) for seed in row.runs]
    values = [None if one is None else dataclasses.asdict(one)[name] for one in each]
    return None if any(value is None for value in values) else sum(values) / len(values)


def _measure(row: Setting, rows: Sequence[Setting], baseline: str | None) -> Setting | None:
    """What the row's operations are divided by."""
    inside = [other for other in rows if other.base == row.base and mean(other, "flops")]
    named = row if baseline in (row.label, row.method) else baseline_of(row, rows, baseline)
    if named in inside:
        return named
    return min(inside, key=lambda other: mean(other, "flops"), default=None)


def table(found: Mapping[str, Mapping[str, Result]]) -> tuple[list[str], list[list[str]]] | None:
    """Heads and rows of the table of costs, from the rows of one base; None where there are none."""
    rows = []
    for method, row in found.items():
        over = [name for name in row if name.startswith(OVER)]
        if any(name in row for name in NAMES.values()):
            cells = [_cell(row.get(metric), name) for name, metric in NAMES.items()]
            rows.append([method, *cells, f"×{row[over[0]].mean:.2f}" if over else "–"])
    names = {name.removeprefix(OVER) for row in found.values() for name in row if name.startswith(OVER)}
    last = f"FLOPs over {names.pop()}" if len(names) == 1 else "FLOPs over the baseline"
    return (["method", *HEADS.values(), last], rows) if rows else None


def _cell(result: Result | None, name: str) -> str:
    if result is None:
        return "–"
    return f"{result.mean / 1e12:.3g}" if name == "flops" else f"{result.mean:,.0f}"
