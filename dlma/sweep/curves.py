"""Harm (or reward) along a curve: against KL from the base, or against operations; and its value at a given place.

A curve holds the settings of a method that differ in numbers only: along KL any (beta, lr, ...), and the base at KL
0; along FLOPs those that move the cost (labels.max_pairs, recipe.epochs, ...). Where runs kept policies on the way
(`intermediate=K`), each setting's own way, from the base to its end, is a further curve along KL. A value at a place
is read off between the two neighbours, seed by seed, on a straight line in the root of KL, along which a policy's
gain is close to straight (Gao et al. 2022, arXiv 2210.10760; a line in KL itself lies far above the curve), or in the
logarithm of operations. The interval is over prompts and seeds, and counts the error in KL too (operations are
counted, not estimated): with w the weight between the neighbours, s the slope in the root there and e = (k - mean k)
/ (2 root of mean k), a prompt adds (1 - w) y1 + w y2 - s ((1 - w) e1 + w e2), the delta method for a value read off
at a given KL.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlma.runs.cells import Arm
from dlma.statistics import intervals
from dlma.statistics.intervals import Estimate, linearised_ratio
from dlma.sweep.costs import mean, of_run
from dlma.sweep.estimates import common_prompts, estimate, with_tests
from dlma.sweep.results import ALIGNED, INTERMEDIATE, Result, Settings, label, result
from dlma.sweep.settings import SHARED_ARMS, Setting, baseline_of, metrics_of

NEAREST = 0.1  # root of 0.01 nats
PERPLEXITY = "perplexity"  # read at the same KLs
# What the curves are of: the first of these that was measured.
METRICS = ("harmful", "sentiment", "cost", "reward", "self_reward")
DEARER = 1.1  # a number moves the cost if two settings that differ in it alone differ by more than this factor
BUDGETS = 3  # how many are chosen where none is given

Place = tuple[float, np.ndarray | float]  # where a setting stands, and each prompt's part in the error of its scale


@dataclass(frozen=True)
class Axis:
    """What curves run along.

    scale: of a place, on which curves are straight; place: of one seed of a setting, over these prompts
    needs: the metrics that it is measured by; beside: what else is read at the same places
    """

    name: str
    scale: Callable[[float], float]
    place: Callable[[Setting, int, Sequence[str]], Place]
    needs: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Curve:
    """A method's settings along an axis; `settings` and `arm` tell it from the method's other curves.

    choices: the overrides that all its points have, of which a curve is held against its like
    start: the base, where every curve along KL begins
    """

    axis: Axis
    base: str
    method: str
    settings: Settings
    choices: tuple[tuple[str, str], ...]
    points: list[Setting]
    start: Setting | None = None
    arm: str = ALIGNED

    @property
    def label(self) -> str:
        return label(self.method, self.settings, self.arm)

    @property
    def every(self) -> list[Setting]:
        return [*([self.start] if self.start else []), *self.points]

    @property
    def seeds(self) -> list[int]:
        """The seeds that every setting has."""
        return sorted(set.intersection(*(set(row.runs) for row in self.every)))

    def is_named(self, name: str | None) -> bool:
        return name in (self.label, self.method, *(row.label for row in self.points))


def _kl_place(row: Setting, seed: int, prompts: Sequence[str]) -> Place:
    kl = values_of(row.arms[seed], prompts, "kl")
    return float(kl.mean()), off(kl)


def _flops_place(row: Setting, seed: int, prompts: Sequence[str]) -> Place:
    return of_run(row, seed).flops, 0.0


def root(kl: float) -> float:
    """The root of a KL; an estimate below 0 counts as 0."""
    return math.sqrt(max(kl, 0.0))


def off(kl: np.ndarray) -> np.ndarray:
    """How far each prompt's KL moves the root of the mean, to first order; below 0.01 nats as if at 0.01.

    kl: (prompts,), nats. The root has no first order at 0.
    """
    mean = float(np.nanmean(kl))
    return (kl - mean) / (2 * max(root(mean), NEAREST))


KL = Axis("kl", root, _kl_place, needs=("kl",), beside=(PERPLEXITY,))
FLOPS = Axis("flops", math.log, _flops_place)


# Which settings make a curve


def along_kl(rows: Sequence[Setting], moving: Sequence[str] | None = None) -> list[Curve]:
    """One curve per base, method and choice, where it has a KL.

    moving: the overrides that move a policy along its curve, all others being choices; None: every one with a number
    """
    own = [row for row in rows if row.arm not in SHARED_ARMS and all("kl" in arm.numbers for arm in row.arms.values())]
    found = []
    for curve in _grouped(own, KL, lambda _, key, value: is_number(value) if moving is None else key in moving):
        whole = replace(curve, start=baseline_of(curve.points[0], rows, None))
        found += _ways(whole) or [whole]
    return found


def along_flops(rows: Sequence[Setting]) -> list[Curve]:
    """Every curve with settings of at least two costs."""
    own = [row for row in rows if row.final and row.arm not in SHARED_ARMS and mean(row, "flops")]
    methods = dict.fromkeys((row.base, row.method) for row in own)
    moving = {of: _moving([row for row in own if (row.base, row.method) == of]) for of in methods}
    drawn = _grouped(own, FLOPS, lambda row, key, _: key in moving[row.base, row.method])
    return [curve for curve in drawn if ends(curve)[1] > DEARER * ends(curve)[0]]


def _grouped(rows: Sequence[Setting], axis: Axis, moves: Callable[[Setting, str, str], bool]) -> list[Curve]:
    """The settings of a method that agree in all overrides but those that move it along the axis."""
    groups: dict[tuple, list[Setting]] = {}
    for row in rows:
        choices = tuple((key, value) for key, value in row.overrides.items() if not moves(row, key, value))
        groups.setdefault((row.base, row.method, choices), []).append(row)
    methods = [key[:2] for key in groups]
    return [
        Curve(axis, base, method, _short(choices) if methods.count((base, method)) > 1 else (), choices, points)
        for (base, method, choices), points in groups.items()
    ]


def _short(choices: Sequence[tuple[str, str]]) -> Settings:
    return tuple((key.rpartition(".")[2], value) for key, value in choices)


def _ways(whole: Curve) -> list[Curve]:
    """The ends of several settings as one curve, and the way of each that has one; nothing where there are not both."""
    settings = {tuple(row.overrides.items()): None for row in whole.points}
    if all(row.final for row in whole.points) or len(settings) == 1:
        return []
    varying = [key for key in dict(next(iter(settings))) if len({dict(one).get(key) for one in settings}) > 1]
    found = [replace(whole, points=[row for row in whole.points if row.final])]
    for overrides in settings:
        points = [row for row in whole.points if tuple(row.overrides.items()) == overrides]
        if not all(row.final for row in points):
            way = tuple((key, dict(overrides)[key]) for key in varying)
            own = {"settings": whole.settings + _short(way), "choices": whole.choices + way, "arm": INTERMEDIATE}
            found.append(replace(whole, points=points, **own))
    return found


def is_number(text: str) -> bool:
    """Whether an override's value is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _moving(rows: Sequence[Setting]) -> set[str]:
    """The overrides whose numbers move the cost of a method."""
    keys = {key for row in rows for key, value in row.overrides.items() if is_number(value)}
    return {key for key in keys if any(high > DEARER * low for low, high in _apart(rows, key))}


def _apart(rows: Sequence[Setting], key: str) -> Iterator[tuple[float, float]]:
    """The costs of every two settings that differ in one key alone, the cheaper one first."""
    for one, other in itertools.combinations(rows, 2):
        if {**one.overrides, key: ""} == {**other.overrides, key: ""}:
            yield tuple(sorted((mean(one, "flops"), mean(other, "flops"))))


def ends(curve: Curve) -> tuple[float, float]:
    """From which operations on, and up to which, every seed of a curve along FLOPs has a value."""
    spent = [[of_run(row, seed).flops for row in curve.points] for seed in curve.seeds]
    return max(map(min, spent), default=math.inf), min(map(max, spent), default=0.0)


def budgets_of(drawn: Sequence[Curve]) -> list[float]:
    """Budgets in the range that all curves have, or that any has; evenly apart on the logarithmic scale."""
    both = [ends(curve) for curve in drawn]
    low, high = max(low for low, _ in both), min(high for _, high in both)
    if low >= high:
        low, high = min(low for low, _ in both), max(high for _, high in both)
    return np.geomspace(low, high, BUDGETS + 2)[1:-1].tolist()


# What stands at a place


def metric_of(rows: Sequence[Setting], wanted: str | None = None) -> str | None:
    """The metric that the curves are of: the one wanted, else the first of METRICS that was measured."""
    if wanted:
        return wanted
    measured = {name for row in rows for arm in row.arms.values() for name in arm.numbers}
    return next((name for name in METRICS if name in measured), None)


def point(row: Setting, metric: str, across: str = "kl") -> tuple[Estimate, Estimate] | None:
    """KL, or another metric that lies across, and height of one setting."""
    arms = list(row.arms.values())
    metrics = metrics_of([row])
    x, y = estimate(metrics[across], arms), estimate(metrics[metric], arms)
    return None if x is None or y is None else (x, y)


Table = tuple[list[int], list[str], np.ndarray]  # seeds, prompts, values (prompts, seeds)


def table_at(curve: Curve, at: float, metric: str) -> Table | None:
    """The table whose mean is the curve's value at a place; None where it is not reached.

    Not reached: some seed has no two neighbours around that place, or too few prompts are shared. Of a perplexity it is
    the logarithm, which is what lies on a line between two neighbours.
    """
    arms = [row.arms[seed] for row in curve.every for seed in curve.seeds]
    names = (metric, *curve.axis.needs)
    if not arms or any(name not in arm.numbers for arm in arms for name in names):
        return None
    shared = set.intersection(*(set(common_prompts(name, arms)) for name in names))
    prompts = [prompt for prompt in arms[0].prompts if prompt in shared]
    if len(prompts) < 2:
        return None
    columns = [_column(curve, seed, prompts, at, metric) for seed in curve.seeds]
    return None if any(c is None for c in columns) else (curve.seeds, prompts, np.stack(columns, axis=1))


def _column(curve: Curve, seed: int, prompts: Sequence[str], at: float, metric: str) -> np.ndarray | None:
    """What each prompt adds to the value at this place, for one seed."""
    axis = curve.axis
    points = [(*axis.place(row, seed, prompts), values_of(row.arms[seed], prompts, metric)) for row in curve.every]
    points.sort(key=lambda one: one[0])
    found = between([axis.scale(x) for x, _, _ in points], axis.scale(at))
    if found is None:
        return None
    i, w, width = found
    (_, e1, y1), (_, e2, y2) = points[i : i + 2]
    slope = (y2.mean() - y1.mean()) / width
    return (1 - w) * y1 + w * y2 - slope * ((1 - w) * e1 + w * e2)


def between(places: Sequence[float], at: float) -> tuple[int, float, float] | None:
    """Of ascending places the first piece around one: where it begins, the weight of its end, and how wide it is."""
    for i, (low, high) in enumerate(itertools.pairwise(places)):
        if low <= at <= high and high > low:
            return i, (at - low) / (high - low), high - low
    return None


def values_of(arm: Arm, prompts: Sequence[str], metric: str) -> np.ndarray:
    """The values of a metric on these prompts."""
    place = {prompt: i for i, prompt in enumerate(arm.prompts)}
    values, weights = arm.numbers[metric][[place[prompt] for prompt in prompts]].T
    if metric != PERPLEXITY:
        return values
    ratio, residuals = linearised_ratio(values, weights)  # nats per token
    return ratio + residuals


def results(
    drawn: Sequence[Curve], metric: str | None, against: str | None, levels: Sequence[float] | None
) -> list[Result]:
    """The curves' values at each place, and their differences from the like curve of `against`; Holm over these.

    levels: None: budgets that are chosen (`budgets_of`), base by base
    """
    found, compared = [], []
    points = [row for curve in drawn for row in curve.points]
    if not drawn or metric is None or metrics_of(points)[metric].kind not in ("mean", "share"):
        return []
    for base in dict.fromkeys(curve.base for curve in drawn):
        inside = [curve for curve in drawn if curve.base == base]
        places = budgets_of(inside) if levels is None else levels
        for curve in inside:
            found += [one for at in places for name in (metric, *curve.axis.beside) for one in _value(curve, at, name)]
            compared += [gap for at in places for gap in _gap(curve, _like(curve, inside, against), at, metric)]
    return found + with_tests(compared)


def _value(curve: Curve, at: float, metric: str) -> Iterator[Result]:
    table = table_at(curve, at, metric)
    if table is not None:
        e = intervals.crossed_interval(table[2])
        shown = intervals.exponential(e) if metric == PERPLEXITY else e
        yield result(curve, metric, shown, table[0], axis=curve.axis.name, at=at)


def _gap(curve: Curve, other: Curve | None, at: float, metric: str) -> Iterator[tuple[Result, np.ndarray]]:
    """The difference from another curve, where both have a value, beside its table."""
    both = None if other is None else difference(table_at(curve, at, metric), table_at(other, at, metric))
    if both is not None:
        e = intervals.crossed_interval(both[1])
        what = {"statistic": "difference", "versus": other.label, "axis": curve.axis.name, "at": at}
        yield result(curve, metric, e, both[0], **what), both[1]


def _like(curve: Curve, inside: Sequence[Curve], against: str | None) -> Curve | None:
    """The curve of a name, a method or a setting; of several, and of ways, the one with equal choices."""
    named = [other for other in inside if other.arm == curve.arm and other.is_named(against)]
    if curve in named:
        return None
    if len(named) > 1 or curve.arm == INTERMEDIATE:
        named = [other for other in named if other.choices == curve.choices]
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
