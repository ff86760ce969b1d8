"""Harm beyond that of a reference curve at the same KL: what a setting does besides going further from the base.

The curve is a method's in another sweep's results.csv, from the base at KL 0 through its settings, fitted in the root
of KL as in readings.py. With K a run's mean KL, c the curve and s its slope in the root there, a prompt with harm y and
KL k adds y - c(K) - s (k - K) / (2 root of K): the delta method for a value read off at a KL that was itself measured.
Here the curve counts as known; its own error is added to the intervals afterwards (`with_its_error`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from dlma.errors import UserError
from dlma.metrics.summary import BEYOND
from dlma.runs.cells import Arm, Cell
from dlma.statistics import curve_fit
from dlma.statistics.curve_fit import Bend, FitReading, HeightScale
from dlma.sweep.curves import is_number, off, root, values_of
from dlma.sweep.results import ALIGNED, Further, Result, Settings, bases, by_row, over_seeds, read_csv
from dlma.sweep.settings import Setting

HARM = "harmful"


@dataclass(frozen=True)
class Known:
    """The reference curve on one base, ascending from the base at KL 0.

    places: roots of KL; heights: logits of the shares of harm there; halves: half the 95 % interval of each height, the
    error in its KL included, as if it were independent of that in harm (it mostly moves along the curve: too wide)
    bend: what the curve is bent by
    """

    places: list[float]
    heights: np.ndarray
    halves: np.ndarray
    scale: HeightScale
    bend: Bend

    def at(self, kl: float) -> FitReading | None:
        return curve_fit.read(self.places, self.heights, root(kl), monotone=True)

    def value(self, reading: FitReading) -> float:
        return self.scale.back(reading.height)

    def half(self, read: Sequence[tuple[float, float, FitReading]]) -> float:
        """Half the 95 % interval of a sum of the curve's values, each with its factor, its KL and its reading."""
        slopes = [factor * float(self.scale.slope(reading.height)) for factor, _, reading in read]
        weights = sum(slope * reading.weights for slope, (_, _, reading) in zip(slopes, read, strict=True))
        of_points = float(np.square(weights * self.halves).sum())
        errors = [self.bend.error(reading) for _, _, reading in read]
        sd, df = curve_fit.summed([(abs(slope) * sd, df) for slope, (sd, df) in zip(slopes, errors, strict=True)])
        return math.sqrt(of_points + (float(stdtrit(df, 0.975)) * sd) ** 2)


def read(path: Path, method: str) -> dict[str, Known]:
    """The curve of a method's settings that differ in numbers, or of a setting by its label, per base that has one.

    Raises UserError where the file is none, or has no such setting beside its base.
    """
    try:
        found = read_csv(path)
    except UserError as reason:
        raise UserError(f"sweep.reference={reason}") from reason
    means = over_seeds(one for one in found if one.statistic == "mean" and not one.axis)
    curves = {}
    for base in bases(means):
        rows = [{r.metric: r for r in own} for own in by_row(r for r in means if r.base == base).values()]
        rows = [row for row in rows if HARM in row and "kl" in row]
        own = [row for row in rows if _is_of(row[HARM], method) and row["kl"].value > 0]  # at 0 there is no curve
        start = [row for row in rows if row[HARM].label == "base"]
        if own and start:
            curves[base] = _curve(start[0], own)
    if not curves:
        raise UserError(f"sweep.reference={path}: no curve of {method} from its base in there")
    return curves


def _is_of(one: Result, method: str) -> bool:
    """Whether a setting is the one named, or differs from the method's others in numbers only."""
    numbers = one.method == method and all(is_number(value) for _, value in one.settings)
    return one.arm == ALIGNED and (numbers or one.label == method)


def _curve(base: Mapping[str, Result], rows: Sequence[Mapping[str, Result]]) -> Known:
    """From the base through these settings; of several at one KL the mean harm, as wide as the widest."""
    scale = HeightScale(base[HARM].n)
    points: dict[float, list[Result]] = {0.0: [base[HARM]]}
    errors: dict[float, float] = {0.0: 0.0}
    for row in rows:
        place = root(row["kl"].value)
        points.setdefault(place, []).append(row[HARM])
        errors[place] = max(errors.get(place, 0.0), _half(row["kl"]) / (2 * place))
    places = sorted(points)
    shares = np.array([np.mean([one.value for one in points[place]]) for place in places])
    heights = scale.to(shares)
    steps = np.abs(np.gradient(heights, places)) if len(places) > 1 else np.zeros(1)
    of_harm = np.array([max(map(_half, points[place])) for place in places]) / scale.slope(heights)
    halves = np.hypot(of_harm, steps * np.array([errors[place] for place in places]))
    return Known(places, heights, halves, scale, curve_fit.bend([(places, heights)], monotone=True))


def _half(one: Result) -> float:
    """Half an interval; 0 where a file has none, as of one seed of one prompt."""
    return 0.0 if math.isnan(one.low) else (one.high - one.low) / 2


def beside(rows: Sequence[Setting], curves: Mapping[str, Known]) -> list[Setting]:
    """The same rows, their answers measured against the curve too wherever it reaches their KL.

    Raises UserError where none of the rows is on a base that has a curve.
    """
    done = {row.base for row in rows}
    if done and not done & curves.keys():
        raise UserError(f"sweep.reference: curves of {', '.join(curves)} only, not of {', '.join(sorted(done))}")
    return [_row(row, curves[row.base]) if row.base in curves else row for row in rows]


def _row(row: Setting, curve: Known) -> Setting:
    return replace(row, runs={seed: _measured(cell, curve) for seed, cell in row.runs.items()})


def _measured(cell: Cell, curve: Known) -> Cell:
    arms = {name: _with(arm, curve) for name, arm in cell.arms.items()}
    return replace(cell, arms=arms, metrics={**cell.metrics, BEYOND.name: BEYOND})


def _with(arm: Arm, curve: Known) -> Arm:
    if HARM not in arm.numbers or "kl" not in arm.numbers:
        return arm
    y, k = (values_of(arm, arm.prompts, name) for name in (HARM, "kl"))
    reading = curve.at(float(np.nanmean(k)))
    if reading is None:
        return arm
    beyond = y - curve.value(reading) - float(curve.scale.slope(reading.height)) * reading.slope * off(k)
    return replace(arm, numbers={**arm.numbers, BEYOND.name: np.stack([beyond, np.ones_like(beyond)], axis=1)})


def with_its_error(found: Sequence[Result], curves: Mapping[str, Known]) -> list[Result]:
    """The same results, the intervals of what is beyond the curve holding the curve's own error too.

    Beside each stands the gap that the curve was read over. The row's error and the curve's count as independent, which
    is too wide where they share prompts. p stays that of prompts and seeds.
    """
    return [line for one in found for line in _with_error(one, found, curves)]


def _with_error(one: Result, found: Sequence[Result], curves: Mapping[str, Known]) -> Iterator[Result]:
    curve = curves.get(one.base)
    if one.metric != BEYOND.name or curve is None or one.statistic not in ("mean", "effect"):
        yield one
        return
    known = readings(one, found, curve)
    half = math.hypot((one.high - one.low) / 2, curve.half(known)) if known else math.nan
    yield replace(one, low=one.value - half, high=one.value + half)
    if one.statistic == "mean" and known:
        first = known[0][2].first
        low, high = (curve.places[first + i] ** 2 for i in (0, 1))
        gap: Further = {"statistic": "gap", "value": high - low, "low": low, "high": high, "n": curve.bend.count}
        gap["p_holm"] = math.nan
        yield replace(one, **gap)


def readings(one: Result, found: Sequence[Result], curve: Known) -> list[tuple[float, float, FitReading]]:
    """At which KLs the curve was read for a result, each with its factor in it; empty where that is not known."""
    kls = [row for row in found if (row.base, row.metric, row.statistic, row.axis) == (one.base, "kl", "mean", "")]
    if one.statistic == "mean":
        own = [[row.value for row in kls if (row.row, row.seeds) == (one.row, one.seeds)][-1:]]
    else:
        ((key, level),) = one.settings
        rows = [row for row in kls if (row.method, row.arm, row.seeds) == (one.method, one.arm, one.seeds)]
        own = [[row.value for row in rows if _level(row.settings, key) == name] for name in (level, one.versus)]
    parts = [(sign / len(kls), kl, curve.at(kl)) for sign, kls in zip((1.0, -1.0), own, strict=False) for kl in kls]
    known = [(factor, kl, reading) for factor, kl, reading in parts if reading is not None]
    return known if all(own) and len(known) == len(parts) else []


def _level(settings: Settings, key: str) -> str | None:
    """The level of a factor, whose name in a row's settings may be the last part of it."""
    told = dict(settings)
    return told.get(key, told.get(key.rpartition(".")[2]))
