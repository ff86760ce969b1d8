"""Harm (or reward) against KL from the base: one curve per method, and its value at matched KL.

A curve holds the settings of a method that differ in numbers only (beta, lr, ...), and the base at KL 0; where runs
kept policies on the way (`along=K`), each setting's own way, from the base to its end, is a further curve. A curve's
value at a KL is read off between the two neighbours, seed by seed, on a line in the root of KL, along which a policy's
gain is close to straight (Gao et al. 2022, arXiv 2210.10760); a line in KL itself lies far above the curve.
The interval is over prompts and seeds, and counts the error in KL too: with w the weight between the neighbours, s the
slope in the root there and e = (k - mean k) / (2 root of mean k), a prompt adds
(1 - w) y1 + w y2 - s ((1 - w) e1 + w e2), the delta method for a value read off at a given KL.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlma.runs.folder import Arm
from dlma.statistics import intervals
from dlma.statistics.intervals import Estimate
from dlma.sweep.estimates import Result, common_prompts, estimate, seeds_of, with_tests
from dlma.sweep.settings import SHARED_ARMS, Setting, baseline_of, metrics_of

LEVELS = (0.5, 1.0, 2.0)
NEAREST = 0.1  # root of 0.01 nats
BESIDE = "perplexity"  # read at the same KLs
HEIGHTS = ("harmful", "cost", "reward", "self_reward")  # what the curve is of: the first of these that was measured


@dataclass(frozen=True)
class Curve:
    """A method's settings; `start` is the base, where every curve begins.

    way: what the setting is whose way this is, among several; None for a method's ends
    """

    name: str
    method: str
    base: str
    points: list[Setting]
    start: Setting | None
    way: tuple[tuple[str, str], ...] | None = None


def curves(rows: Sequence[Setting], over: Sequence[str] | None = None) -> list[Curve]:
    """One curve per base, method and choice, where it has a KL.

    over: the overrides that move a policy along its curve, all others being choices; None: every one with a number
    """
    groups: dict[tuple, list[Setting]] = {}
    for row in rows:
        if row.arm not in SHARED_ARMS and all("kl" in arm.numbers for arm in row.arms.values()):
            choices = tuple((key, value) for key, value in row.overrides.items() if not _moves(key, value, over))
            groups.setdefault((row.base, row.method, choices), []).append(row)
    methods = [key[:2] for key in groups]
    found = []
    for (base, method, choices), points in groups.items():
        told = [_told(key, value) for key, value in choices] if methods.count((base, method)) > 1 else []
        start = baseline_of(points[0], rows, None)
        whole = Curve(", ".join([method, *told]), method, base, points, start)
        found += _ways(whole) or [whole]
    return found


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
            told = [f"{key.rpartition('.')[2]}={value}" for key, value in way]
            found.append(replace(whole, name=", ".join([whole.name, *told, "on the way"]), points=points, way=way))
    return found


def _moves(key: str, value: str, over: Sequence[str] | None) -> bool:
    return is_number(value) if over is None else key in over


def _told(key: str, value: str) -> str:
    """A choice in a curve's name: a word by itself, a number with its key."""
    return f"{key.rpartition('.')[2]}={value}" if is_number(value) or value == "null" else value


def is_number(text: str) -> bool:
    """Whether an override's value is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def height(rows: Sequence[Setting], wanted: str | None = None) -> str | None:
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


def table_at(curve: Curve, level: float, metric: str) -> tuple[list[int], list[str], np.ndarray] | None:
    """(seeds, prompts, (prompts, seeds) table) whose mean is the curve's value at a KL; None where it is not reached.

    Not reached: some seed has no two neighbours around that KL, or too few prompts are shared. Of a perplexity it is
    the logarithm, which is what lies on a line between two neighbours.
    """
    points = [*([curve.start] if curve.start else []), *curve.points]
    seeds = sorted(set.intersection(*(set(row.runs) for row in points)))
    arms = {seed: [row.arms[seed] for row in points] for seed in seeds}
    every = [arm for inside in arms.values() for arm in inside]
    if not every or any(name not in arm.numbers for arm in every for name in ("kl", metric)):
        return None
    shared = set(common_prompts(metric, every)) & set(common_prompts("kl", every))
    prompts = [prompt for prompt in every[0].prompts if prompt in shared]
    if len(prompts) < 2:
        return None
    columns = [_column(arms[seed], prompts, level, metric) for seed in seeds]
    return None if any(c is None for c in columns) else (seeds, prompts, np.stack(columns, axis=1))


def _column(arms: Sequence[Arm], prompts: Sequence[str], level: float, metric: str) -> np.ndarray | None:
    """What each prompt adds to the value at this KL, for one seed."""
    values = [(values_of(arm, prompts, "kl"), values_of(arm, prompts, metric)) for arm in arms]
    values.sort(key=lambda both: both[0].mean())
    for (k1, y1), (k2, y2) in itertools.pairwise(values):
        low, wanted, high = root(k1.mean()), root(level), root(k2.mean())
        if low <= wanted <= high and high > low:
            w, slope = (wanted - low) / (high - low), (y2.mean() - y1.mean()) / (high - low)
            return (1 - w) * y1 + w * y2 - slope * ((1 - w) * off(k1) + w * off(k2))
    return None


def root(kl: float) -> float:
    """The root of a KL; an estimate below 0 counts as 0."""
    return math.sqrt(max(kl, 0.0))


def off(kl: np.ndarray) -> np.ndarray:
    """How far each prompt's KL moves the root of the mean, to first order; below 0.01 nats as if at 0.01.

    kl: (prompts,), nats. The root has no first order at 0.
    """
    mean = float(np.nanmean(kl))
    return (kl - mean) / (2 * max(root(mean), NEAREST))


def values_of(arm: Arm, prompts: Sequence[str], metric: str) -> np.ndarray:
    """The values of a metric on these prompts."""
    place = {prompt: i for i, prompt in enumerate(arm.prompts)}
    values, weights = arm.numbers[metric][[place[prompt] for prompt in prompts]].T
    if metric != BESIDE:
        return values
    ratio = values.sum() / weights.sum()  # nats per token: each prompt's part in it, to first order
    return ratio + (values - ratio * weights) / weights.mean()


def results(
    rows: Sequence[Setting],
    baseline: str | None = None,
    levels: Sequence[float] = LEVELS,
    over: Sequence[str] | None = None,
    of: str | None = None,
) -> list[Result]:
    """The curves' values and perplexities at each KL, and their differences from the baseline method's like curve.

    Holm over these differences.
    """
    metric, found = height(rows, of), []
    drawn = curves(rows, over)
    if metric is None or metrics_of(rows)[metric].kind not in ("mean", "share"):
        return []
    for curve in drawn:
        for level in levels:
            at = table_at(curve, level, metric)
            if at is not None:
                e = intervals.crossed_interval(at[2])
                found.append(_result(curve, at[0], f"{metric} at kl {level:g}", e))
            fluent = table_at(curve, level, BESIDE)
            if fluent is not None:
                e = intervals.exponential(intervals.crossed_interval(fluent[2]))
                found.append(_result(curve, fluent[0], f"{BESIDE} at kl {level:g}", e))
    return found + _against(drawn, baseline, levels, metric)


def _result(curve: Curve, seeds: Sequence[int], metric: str, e: Estimate) -> Result:
    return Result(curve.name, curve.base, seeds_of(seeds), metric, e.n, e.value, e.low, e.high)


def _against(drawn: Sequence[Curve], baseline: str | None, levels: Sequence[float], metric: str) -> list[Result]:
    found = []
    for curve in drawn:
        alike = [c for c in drawn if (c.base, c.way) == (curve.base, curve.way) and c is not curve]
        others = [c for c in alike if baseline in (c.name, c.method)]
        if len(others) != 1:
            continue
        for level in levels:
            table = difference(table_at(curve, level, metric), table_at(others[0], level, metric))
            if table is not None:
                seeds, values = table
                name = f"{metric} at kl {level:g} minus {others[0].name}"
                found.append((_result(curve, seeds, name, intervals.crossed_interval(values)), values))
    return with_tests(found)


def difference(first: tuple | None, second: tuple | None) -> tuple[list[int], np.ndarray] | None:
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
