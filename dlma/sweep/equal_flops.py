"""Harm (or reward) at equal floating-point operations: one curve per method over its settings of different cost.

A curve holds the settings of a method that differ only in numbers that move its cost (labels.max_pairs, recipe.epochs,
iterations ...). Its value at a budget is read off between the two neighbours on a logarithmic scale of operations, seed
by seed; a method has none below its cheapest setting and above its dearest. The operations of a run are counted, not
estimated, so the interval is over prompts and seeds alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dlma.statistics import intervals
from dlma.sweep.costs import mean, of_run
from dlma.sweep.curves import difference, height, is_number, values_of
from dlma.sweep.estimates import Result, common_prompts, seeds_of, with_tests
from dlma.sweep.settings import SHARED_ARMS, Setting, metrics_of

DEARER = 1.1  # a number moves the cost if two settings that differ in it alone differ by more than this factor
BUDGETS = 3  # how many are chosen where none is given


@dataclass(frozen=True)
class Curve:
    """A method's settings of different cost; `rest` is what else they have in common of what differs in the sweep."""

    name: str
    method: str
    base: str
    rest: tuple[tuple[str, str], ...]
    points: list[Setting]

    @property
    def seeds(self) -> list[int]:
        """The seeds that every setting has."""
        return sorted(set.intersection(*(set(row.runs) for row in self.points)))

    @property
    def ends(self) -> tuple[float, float]:
        """From which operations on, and up to which, every seed has a value."""
        spent = [[of_run(row, seed).flops for row in self.points] for seed in self.seeds]
        return max(map(min, spent), default=math.inf), min(map(max, spent), default=0.0)


def curves(rows: Sequence[Setting]) -> list[Curve]:
    """Every curve with settings of at least two costs."""
    groups: dict[tuple, list[Setting]] = {}
    own = [row for row in rows if row.final and row.arm not in SHARED_ARMS and mean(row, "flops")]
    for row in own:
        moving = _moving([other for other in own if (other.base, other.method) == (row.base, row.method)])
        rest = tuple((key, value) for key, value in row.overrides.items() if key not in moving)
        groups.setdefault((row.base, row.method, rest), []).append(row)
    methods = [key[:2] for key in groups]
    found = []
    for (base, method, rest), points in groups.items():
        told = [f"{key.rpartition('.')[2]}={value}" for key, value in rest] if methods.count((base, method)) > 1 else []
        found.append(Curve(", ".join([method, *told]), method, base, rest, points))
    return [curve for curve in found if curve.ends[1] > DEARER * curve.ends[0]]


def _moving(rows: Sequence[Setting]) -> set[str]:
    """The overrides whose numbers move the cost of a method."""
    keys = {key for row in rows for key, value in row.overrides.items() if is_number(value)}
    return {key for key in keys if any(high > DEARER * low for low, high in _apart(rows, key))}


def _apart(rows: Sequence[Setting], key: str) -> Iterator[tuple[float, float]]:
    """The costs of every two settings that differ in one key alone, the cheaper one first."""
    for one, other in itertools.combinations(rows, 2):
        if {**one.overrides, key: ""} == {**other.overrides, key: ""}:
            yield tuple(sorted((mean(one, "flops"), mean(other, "flops"))))


def budgets_of(drawn: Sequence[Curve]) -> list[float]:
    """Budgets in the range that all curves have, or that any has; evenly apart on the logarithmic scale."""
    ends = [curve.ends for curve in drawn]
    low, high = max(low for low, _ in ends), min(high for _, high in ends)
    if low >= high:
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return np.geomspace(low, high, BUDGETS + 2)[1:-1].tolist()


def table_at(curve: Curve, budget: float, metric: str) -> tuple[list[int], list[str], np.ndarray] | None:
    """(seeds, prompts, (prompts, seeds) table) whose mean is the curve's value at a budget; None: not reached."""
    seeds = curve.seeds
    every = [row.arms[seed] for row in curve.points for seed in seeds]
    if not every or any(metric not in arm.numbers for arm in every):
        return None
    prompts = common_prompts(metric, every)
    if len(prompts) < 2:
        return None
    columns = [_column(curve, seed, prompts, budget, metric) for seed in seeds]
    return None if any(c is None for c in columns) else (seeds, prompts, np.stack(columns, axis=1))


def _column(curve: Curve, seed: int, prompts: Sequence[str], budget: float, metric: str) -> np.ndarray | None:
    """Each prompt's value at this budget, for one seed."""
    points = [(of_run(row, seed).flops, values_of(row.arms[seed], prompts, metric)) for row in curve.points]
    points.sort(key=lambda point: point[0])
    for (low, first), (high, second) in itertools.pairwise(points):
        if low <= budget <= high and high > low:
            weight = math.log(budget / low) / math.log(high / low)
            return (1 - weight) * first + weight * second
    return None


def results(
    rows: Sequence[Setting],
    baseline: str | None = None,
    budgets: Sequence[float] | None = None,
    of: str | None = None,
) -> list[Result]:
    """The curves' values at each budget, and their differences from the baseline's curve; Holm over the differences."""
    metric, found, tables = height(rows, of), [], []
    if metric is None or metrics_of(rows)[metric].kind not in ("mean", "share"):
        return []
    drawn = curves(rows)
    for base in dict.fromkeys(curve.base for curve in drawn):
        inside = [curve for curve in drawn if curve.base == base]
        for budget in budgets_of(inside) if budgets is None else budgets:
            name, each = f"{metric} at flops {budget:.3g}", [table_at(curve, budget, metric) for curve in inside]
            for curve, at in zip(inside, each, strict=True):
                if at is not None:
                    found.append(_result(curve, at[0], name, at[2]))
            for curve, other, gap in _gaps(inside, each, baseline):
                tables.append((_result(curve, gap[0], f"{name} minus {other.name}", gap[1]), gap[1]))
    return found + with_tests(tables)


def _gaps(inside: Sequence[Curve], each: Sequence[tuple | None], baseline: str | None) -> Iterator[tuple]:
    """(curve, the baseline's curve, their difference) wherever both have a value."""
    for curve, at in zip(inside, each, strict=True):
        other = _baseline(curve, inside, baseline)
        gap = None if other is None else difference(at, each[inside.index(other)])
        if gap is not None:
            yield curve, other, gap


def _baseline(curve: Curve, inside: Sequence[Curve], baseline: str | None) -> Curve | None:
    """The curve of the baseline: of its name, its method or one of its settings; of several the one with equal rest."""
    named = [c for c in inside if baseline in (c.name, c.method, *(row.label for row in c.points))]
    alike = named if len(named) == 1 else [c for c in named if c.rest == curve.rest]
    return alike[0] if len(alike) == 1 and curve not in named else None


def _result(curve: Curve, seeds: Sequence[int], metric: str, table: np.ndarray) -> Result:
    e = intervals.crossed_interval(table)
    return Result(curve.name, curve.base, seeds_of(seeds), metric, e.n, e.value, e.low, e.high)
