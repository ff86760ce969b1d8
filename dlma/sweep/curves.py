"""Curves of harm (or reward) against KL from the base, or against operations: which settings make one.

A curve holds the settings of a method that differ in numbers only: along KL any (beta, lr, ...), and the base at KL
0; along FLOPs those that move the cost (labels.max_pairs, recipe.epochs, ...). Where runs kept policies on the way
(`intermediate=K`), each setting's own way, from the base to its end, is a further curve along KL. What a curve's value
is at a given place: readings.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlma.metrics.summary import METRICS
from dlma.runs.cells import Arm
from dlma.statistics.intervals import Estimate, linearised_ratio
from dlma.sweep.costs import mean, of_run
from dlma.sweep.estimates import estimate
from dlma.sweep.results import ALIGNED, INTERMEDIATE, Settings, label
from dlma.sweep.settings import SHARED_ARMS, Setting, baseline_of, metrics_of

NEAREST = 0.1  # root of 0.01 nats
PERPLEXITY = "perplexity"
RATIOS = [metric.name for metric in METRICS if metric.kind in ("ratio", "exp_ratio")]
# What the curves are of: the first of these that was measured.
HEIGHTS = ("harmful", "sentiment", "cost", "reward", "self_reward")
DEARER = 1.1  # a number moves the cost if two settings that differ in it alone differ by more than this factor
BUDGETS = 3  # how many are chosen where none is given

Place = tuple[float, np.ndarray | float]  # where a setting stands, and each prompt's part in the error of its scale


@dataclass(frozen=True)
class Axis:
    """What curves run along.

    scale: of a place, on which curves are straight, and back; place: of one seed of a setting, over these prompts
    needs: the metrics that it is measured by; beside: what else is read at the same places
    fitted: whether the curve falls or rises all along, shares as logits; else it is a line between two settings
    """

    name: str
    scale: Callable[[float], float]
    unscale: Callable[[float], float]
    place: Callable[[Setting, int, Sequence[str]], Place]
    needs: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    fitted: bool = False


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
    return _flops(row, seed), 0.0


def _flops(row: Setting, seed: int) -> float:
    costs = of_run(row, seed)
    assert costs is not None and costs.flops is not None  # `along_flops` takes no other rows
    return costs.flops


def root(kl: float) -> float:
    """The root of a KL; an estimate below 0 counts as 0."""
    return math.sqrt(max(kl, 0.0))


def off(kl: np.ndarray) -> np.ndarray:
    """How far each prompt's KL moves the root of the mean, to first order; below 0.01 nats as if at 0.01.

    kl: (prompts,), nats. The root has no first order at 0.
    """
    mean = float(np.nanmean(kl))
    return (kl - mean) / (2 * max(root(mean), NEAREST))


# Read at the same KLs: what less harm may be paid in.
BESIDE = (PERPLEXITY, "entropy", "tokens", "refused_safe")
KL = Axis("kl", root, np.square, _kl_place, needs=("kl",), beside=BESIDE, fitted=True)
FLOPS = Axis("flops", math.log, math.exp, _flops_place)


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
        choices += tuple(
            (key, value) for key, value in row.settings if not is_number(value) and not _override(row, key)
        )
        groups.setdefault((row.base, row.method, choices), []).append(row)
    methods = [key[:2] for key in groups]
    return [
        Curve(axis, base, method, _short(choices) if methods.count((base, method)) > 1 else (), choices, points)
        for (base, method, choices), points in groups.items()
    ]


def _override(row: Setting, key: str) -> bool:
    """Whether what tells the row apart is an override of its run, by its whole name or the last part of it."""
    return key in row.overrides or any(name.rpartition(".")[2] == key for name in row.overrides)


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
            told, choices = whole.settings + _short(way), whole.choices + way
            found.append(replace(whole, points=points, settings=told, choices=choices, arm=INTERMEDIATE))
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
            low, high = sorted(spent for row in (one, other) if (spent := mean(row, "flops")) is not None)
            yield low, high


def ends(curve: Curve) -> tuple[float, float]:
    """From which operations on, and up to which, every seed of a curve along FLOPs has a value."""
    spent = [[_flops(row, seed) for row in curve.points] for seed in curve.seeds]
    return max((min(one) for one in spent), default=math.inf), min((max(one) for one in spent), default=0.0)


def budgets_of(drawn: Sequence[Curve]) -> list[float]:
    """Budgets in the range that all curves have, or that any has; evenly apart on the logarithmic scale."""
    both = [ends(curve) for curve in drawn]
    low, high = max(low for low, _ in both), min(high for _, high in both)
    if low >= high:
        low, high = min(low for low, _ in both), max(high for _, high in both)
    return np.geomspace(low, high, BUDGETS + 2)[1:-1].tolist()


# What stands at a place


def metric_of(rows: Sequence[Setting], wanted: str | None = None) -> str | None:
    """The metric that the curves are of: the one wanted, else the first of HEIGHTS that was measured."""
    if wanted:
        return wanted
    measured = {name for row in rows for arm in row.arms.values() for name in arm.numbers}
    return next((name for name in HEIGHTS if name in measured), None)


def point(row: Setting, metric: str, across: str = "kl") -> tuple[Estimate, Estimate] | None:
    """KL, or another metric that lies across, and height of one setting."""
    arms = list(row.arms.values())
    metrics = metrics_of([row])
    x, y = estimate(metrics[across], arms), estimate(metrics[metric], arms)
    return None if x is None or y is None else (x, y)


def values_of(arm: Arm, prompts: Sequence[str], metric: str) -> np.ndarray:
    """The values of a metric on these prompts; of a ratio what each adds to it, of a perplexity to its logarithm."""
    place = {prompt: i for i, prompt in enumerate(arm.prompts)}
    values, weights = arm.numbers[metric][[place[prompt] for prompt in prompts]].T
    if metric not in RATIOS:
        return values
    ratio, residuals = linearised_ratio(values, weights)  # nats per token
    return ratio + residuals
