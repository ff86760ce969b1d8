"""Seeds added to a table whose earlier run folders are gone: what `experiments/tables.py add` does beside collecting.

Of the earlier seeds values.parquet holds the values, and results.csv what a run cost on average; no judge's verdicts
and no metric that results.csv does not have. So a test over all metrics (table.yaml without `tested`) counts the kept
ones, and along operations each of these seeds stands at their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dlma.cost.spent import Costs
from dlma.errors import UserError
from dlma.metrics.summary import BEYOND
from dlma.sweep import costs, values
from dlma.sweep.joined_seeds import Name, joined, name_of
from dlma.sweep.results import Result, over_seeds, read_csv
from dlma.sweep.settings import Setting

Called = Callable[[Setting], Setting]
OF_RUNS = ("mean", "difference", "ratio", "share", "cost")  # by seeds, and of every run that there is


def with_earlier(folder: Path, rows: Sequence[Setting], called: Called = lambda row: row) -> list[Setting]:
    """These rows joined with those of the experiment's values.parquet; UserError where it has none.

    called: a row as results.csv has it, where the experiment's table.py gives rows names of its own
    """
    path = folder / "values.parquet"
    if not path.exists():
        raise UserError(f"{path}: not there; collect the folders of all seeds")
    return joined(rows, with_costs(values.read(path), read_csv(folder / "results.csv"), rows, called))


def with_costs(
    earlier: Sequence[Setting], found: Sequence[Result], rows: Sequence[Setting], called: Called = lambda row: row
) -> list[Setting]:
    """The earlier rows with what their runs cost, by the committed means.

    Of a row whose seeds are partly in folders (`rows`) too, the others have what is left of the mean without those.
    """
    told: dict[Name, dict[str, float]] = {}
    for one in found:
        if (one.statistic, one.versus) == ("cost", ""):
            told.setdefault(name_of(one), {})[one.metric] = one.value
    own = {name_of(row): row for row in rows}
    names = [name_of(called(row)) for row in earlier]
    return [
        _costing(row, told[name], own.get(name_of(row))) if name in told else row
        for row, name in zip(earlier, names, strict=True)
    ]


def _costing(row: Setting, told: dict[str, float], own: Setting | None) -> Setting:
    again = {seed: cell for seed, cell in own.runs.items() if seed in row.runs} if own else {}
    if len(again) == len(row.runs):
        return row
    known = {name: told.get(name) for name in costs.HEADS}
    if own and again:
        known = {name: _left(value, name, row, replace(own, runs=again)) for name, value in known.items()}
    return replace(row, runs={seed: replace(cell, costs=Costs(**known)) for seed, cell in row.runs.items()})


def _left(value: float | None, name: str, row: Setting, again: Setting) -> float | None:
    """The mean cost of the runs of a row that were not made again."""
    spent, whole, part = costs.mean(again, name), len(row.runs), len(again.runs)
    return None if value is None or spent is None else (value * whole - spent * part) / (whole - part)


def refuse_losses(before: Sequence[Result], found: Sequence[Result]) -> None:
    """Raise UserError where a number of the committed results would be gone, or be over fewer seeds than it was.

    Values at a KL may go, where a further seed does not reach it; so may what is beyond a reference curve.
    """
    seeds = {one.key: set(one.seeds) for one in found}
    lost = [one for one in over_seeds(before) if _is_of_runs(one) and not set(one.seeds) <= seeds.get(one.key, set())]
    if lost:
        names = "; ".join(f"{one.base}, {one.label}: {one.statistic} of {one.metric}" for one in lost[:3])
        raise UserError(
            f"{len(lost)} numbers of results.csv would be lost, or be over fewer seeds than now ({names}): "
            "values.parquet, or the folders, do not have what they come from"
        )


def _is_of_runs(one: Result) -> bool:
    quotient = one.statistic == "cost" and one.versus  # to the cheapest row, which may be another now
    return one.statistic in OF_RUNS and not one.axis and one.metric != BEYOND.name and not quotient


def by_seeds(rows: Sequence[Setting]) -> dict[tuple[int, ...], list[str]]:
    """The table's rows by the seeds that they have, the most of them first."""
    found: dict[tuple[int, ...], list[str]] = {}
    for row in (row for row in rows if row.final):
        found.setdefault(tuple(row.runs), []).append(f"{row.base}, {row.label}")
    return dict(sorted(found.items(), key=lambda one: -len(one[1])))
