"""Values at a KL from a results.csv of before values.parquet: what pooled means can still say, and what they cannot.

These files hold means over seeds, and values that were read seed by seed on straight lines in the root of KL. To such
a value is added by how much the fit of today (dlma/sweep/readings.py) differs from those lines, both through the
pooled means, so that what was paired stays paired. The interval keeps its half width over prompts and seeds, that of
the lines, and holds besides what settings left out in turn are missed by, and, of what lies beyond a reference curve,
that curve's own error. p cannot be computed: it stands as the least that the new interval allows, by Holm. Not known
at all: the seeds' variance pooled over a table, prompts and seeds needed, and what was never put into the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml
from scipy.special import stdtr, stdtrit

from dlma.metrics.summary import BEYOND
from dlma.statistics import curve_fit, significance
from dlma.statistics.curve_fit import Bend, FitReading, HeightScale
from dlma.statistics.intervals import Estimate
from dlma.sweep import reference_curve
from dlma.sweep.curves import NEAREST, PERPLEXITY, root
from dlma.sweep.reference_curve import Known
from dlma.sweep.results import ALIGNED, Result, over_seeds, read_csv

SHARES = ("harmful", "refused_safe")
NOTES = {
    "kl again": (
        "The values at a KL are those read seed by seed on straight lines, moved by what the fit differs from these "
        "lines through the means over seeds; their intervals over prompts and seeds are those of the lines, with what "
        "settings left out are missed by besides. p: at least so large. The seeds' variance pooled over the table, and "
        "the prompts and seeds needed, could not be computed."
    ),
    "kl": (
        "The values at a KL are on straight lines in its root, through policies on the way that were not kept either: "
        "what such a line misses could not be computed and is not in the intervals, so that nothing is shown to be "
        "within a margin."
    ),
    "flops": (
        "The values at equal FLOPs are on straight lines in their logarithm; what such a line misses was not computed."
    ),
    "beyond": (
        "What lies beyond the curve is held against its fit, through means over seeds, instead of straight lines; the "
        "intervals hold the curve's own error, as if it were independent of the rows', p does not."
    ),
}
LEAST_POINTS = 3  # the base and two settings: with one, the file does not say what else the curve ran through


Key = tuple[str, str, str]  # base, label of a curve, metric


@dataclass(frozen=True)
class Pooled:
    """A curve's settings as pooled means: roots of KL and heights, ascending from the base; and its base's bend."""

    places: list[float]
    heights: np.ndarray
    scale: HeightScale
    monotone: bool
    bend: Bend

    def read(self, kl: float) -> FitReading | None:
        return curve_fit.read(self.places, self.heights, root(kl), monotone=self.monotone)

    def above_lines(self, kl: float, reading: FitReading) -> float:
        """By how much the fit stands above straight lines between the settings."""
        lines = np.interp(root(kl), self.places, [self.scale.back(height) for height in self.heights])
        return self.scale.back(reading.height) - float(lines)

    def error(self, reading: FitReading) -> tuple[float, float]:
        """What the line between the settings around the place misses: (sd, degrees of freedom)."""
        sd, df = self.bend.error(reading)
        return float(self.scale.slope(reading.height)) * sd, df


def results(folder: Path) -> list[Result]:
    """The committed results of an experiment, those at a KL read again where only pooled means were kept."""
    found = read_csv(folder / "results.csv")
    return found if _is_kept(folder, found) else read_again(found, _reference(folder))


def note(folder: Path) -> str | None:
    """What a page with values at a KL, at operations or beyond a curve has to say of them."""
    found = read_csv(folder / "results.csv")
    if _is_kept(folder, found):
        return None
    again, axes = results(folder), {one.axis for one in found}
    of_kl = "kl again" if any(one.axis == "kl" and one.statistic == "gap" for one in again) else "kl"
    told = [of_kl] * ("kl" in axes) + ["flops"] * ("flops" in axes)
    told += ["beyond"] * any(one.metric == BEYOND.name for one in found)
    return " ".join(["Of these runs no value per seed and prompt was kept.", *map(NOTES.get, told)]) if told else None


def _is_kept(folder: Path, found: Sequence[Result]) -> bool:
    return (folder / "values.parquet").exists() or any(one.statistic == "gap" for one in found)


def _reference(folder: Path) -> Mapping[str, Known]:
    table = folder / "table.yaml"
    reference = yaml.safe_load(table.read_text()).get("reference") if table.exists() else None
    return reference_curve.read(folder.parent / reference / "results.csv", "dlma") if reference else {}


def read_again(found: Sequence[Result], reference: Mapping[str, Known]) -> list[Result]:
    """The same results, their values at a KL on the fit, with the gaps they were read over."""
    whole = over_seeds(found)
    curves = _curves(whole)
    again = [line for one in whole for line in _read_again(one, curves)]
    again += [line for key, curve in curves.items() for line in _missed(key, curve, whole)]
    beyond = [_beyond(one, whole, reference) for one in again]
    return reference_curve.with_its_error(_with_p(beyond, curves), reference)


def _curves(found: Sequence[Result]) -> dict[Key, Pooled]:
    """The curves that values were read off at a KL, where the settings that they run through are in the file."""
    own = {one.metric for one in found if (one.axis, one.statistic) == ("kl", "difference")}
    read = {(one.base, one.label, one.metric): one for one in found if (one.axis, one.statistic) == ("kl", "mean")}
    points = {key: _points(one, found) for key, one in read.items() if one.arm == ALIGNED}
    points = {key: at for key, at in points.items() if len(at[0]) >= LEAST_POINTS}
    bends = {}
    for base, metric in {(key[0], key[2]) for key in points}:
        alike = [at[:2] for key, at in points.items() if (key[0], key[2]) == (base, metric)]
        bends[base, metric] = curve_fit.bend(alike, monotone=metric in own)
    return {key: Pooled(*at, key[2] in own, bends[key[0], key[2]]) for key, at in points.items()}


def _points(curve: Result, found: Sequence[Result]) -> tuple[list[float], np.ndarray, HeightScale]:
    """Where a curve's settings stand, on the scales of the fit."""
    scale = HeightScale(curve.n if curve.metric in SHARES else 0)
    height = math.log if curve.metric == PERPLEXITY else lambda value: float(scale.to(value))
    points = sorted({root(row["kl"].value): height(row[curve.metric].value) for row in _settings(curve, found)}.items())
    return [x for x, _ in points], np.array([z for _, z in points]), scale


def _settings(curve: Result, found: Sequence[Result]) -> list[dict[str, Result]]:
    """All settings of a curve's method that have its own settings, and the base, each by metric."""
    rows: dict[tuple, dict[str, Result]] = {}
    for one in found:
        mine = (one.method, one.arm) == (curve.method, curve.arm) and set(curve.settings) <= set(one.settings)
        if one.base == curve.base and one.statistic == "mean" and not one.axis and (mine or one.label == "base"):
            rows.setdefault(one.row, {})[one.metric] = one
    return [row for row in rows.values() if curve.metric in row and "kl" in row]


def _read_again(one: Result, curves: Mapping[Key, Pooled]) -> Iterator[Result]:
    keys = [(one.base, label, one.metric) for label in (one.label, one.versus) if label]
    if one.axis != "kl" or not all(key in curves for key in keys):
        yield one
        return
    if one.statistic == "needed":
        return
    both = [(curves[key], curves[key].read(one.at)) for key in keys]
    moved = [0.0 if one.metric == PERPLEXITY else curve.above_lines(one.at, read) for curve, read in both]
    sd, df = curve_fit.summed(curve.error(read) for curve, read in both)
    yield _widened(one, moved[0] - sum(moved[1:]), float(stdtrit(df, 0.975)) * sd)
    if one.statistic == "mean":
        curve, read = both[0]
        low, high = (curve.places[read.first + i] ** 2 for i in (0, 1))
        yield replace(one, statistic="gap", value=high - low, low=low, high=high, n=curve.bend.count)


def _widened(one: Result, by: float, half: float) -> Result:
    """A result moved, and its interval widened; of a perplexity by its logarithm."""
    to, back = (math.log, math.exp) if one.metric == PERPLEXITY else (float, float)
    value = to(one.value) + by
    half = math.hypot(half, (to(one.high) - to(one.low)) / 2)
    return replace(one, value=back(value), low=back(value - half), high=back(value + half))


def _missed(key: Key, curve: Pooled, found: Sequence[Result]) -> Iterator[Result]:
    base, label, metric = key
    left = curve_fit.left_out(curve.places, curve.heights, monotone=curve.monotone)
    if left and metric != PERPLEXITY:
        rms = math.sqrt(np.mean([(curve.scale.back(z) - curve.scale.back(curve.heights[i])) ** 2 for i, z, _ in left]))
        (one, *_) = (r for r in found if (r.base, r.label, r.metric, r.axis) == (base, label, metric, "kl"))
        yield replace(one, statistic="missed", at=None, value=rms, low=math.nan, high=math.nan, n=len(left))


def _beyond(one: Result, found: Sequence[Result], reference: Mapping[str, Known]) -> Result:
    """What lies beyond a reference curve, held against its fit instead of lines between its settings."""
    curve = reference.get(one.base)
    if one.metric != BEYOND.name or curve is None or one.statistic not in ("mean", "effect"):
        return one
    shares = [curve.scale.back(height) for height in curve.heights]
    more = 0.0
    for factor, kl, reading in reference_curve.readings(one, found, curve):
        more += factor * (float(np.interp(root(kl), curve.places, shares)) - curve.value(reading))
    return replace(one, value=one.value + more, low=one.low + more, high=one.high + more)


def _with_p(found: Sequence[Result], curves: Mapping[Key, Pooled]) -> list[Result]:
    """The p of differences that were read again: the least that their intervals allow, by Holm over all of them."""
    compared = [i for i, one in enumerate(found) if one.axis == "kl" and one.versus and one.statistic == "difference"]
    again = [i for i in compared if (found[i].base, found[i].label, found[i].metric) in curves]
    least = significance.holm([least_p(found[i]) for i in again])
    p = dict(zip(again, least, strict=True))
    return [replace(one, p_holm=p[i]) if i in p else one for i, one in enumerate(found)]


def unpaired(found: Sequence[Result], metric: str, kl: float) -> dict[str, tuple[Estimate, float, float]]:
    """Another metric at a KL, by the label of each curve there: its value on straight lines, and the gap's ends.

    The interval is made of those of the settings around it, as if their errors were one, with the error in KL and what
    the line misses besides. Of a perplexity it is the logarithm.
    """
    rows = {one.label: one for one in found if (one.axis, one.at, one.statistic) == ("kl", kl, "mean")}
    points = {label: _points(replace(one, metric=metric), found) for label, one in rows.items()}
    bend = curve_fit.bend([at[:2] for at in points.values()], monotone=False)
    read = {}
    for label, at in points.items():
        reading = curve_fit.read(at[0], at[1], root(kl), monotone=False)
        if reading:
            curve = Pooled(*at, False, bend)
            low, high = (curve.places[reading.first + i] for i in (0, 1))
            read[label] = (_unpaired(rows[label], metric, curve, reading, found), low**2, high**2)
    return read


def _unpaired(row: Result, metric: str, curve: Pooled, reading: FitReading, found: Sequence[Result]) -> Estimate:
    halves = _halves(replace(row, metric=metric), curve, found)
    slope = float(curve.scale.slope(reading.height))
    of_points = slope * float(reading.weights @ halves[metric])
    of_kl = slope * abs(reading.slope) * float(reading.weights @ halves["kl"])
    sd, df = curve.error(reading)
    missed = float(stdtrit(df, 0.975)) * sd
    value, half = curve.scale.back(reading.height), math.hypot(of_points, of_kl, missed)
    return Estimate(value, value - half, value + half, row.n, len(row.seeds))


def _halves(curve: Result, pooled: Pooled, found: Sequence[Result]) -> dict[str, np.ndarray]:
    """Half the interval of each setting's height and of its place, on the curve's scales."""
    heights, places = np.zeros(len(pooled.places)), np.zeros(len(pooled.places))
    for row in _settings(curve, found):
        i = pooled.places.index(root(row["kl"].value))
        one, kl = row[curve.metric], row["kl"]
        ends = [math.log(end) if curve.metric == PERPLEXITY else end for end in (one.low, one.high)]
        heights[i] = (ends[1] - ends[0]) / 2 / float(pooled.scale.slope(pooled.heights[i]))
        places[i] = (kl.high - kl.low) / 2 / (2 * max(pooled.places[i], NEAREST))
    return {curve.metric: heights, "kl": places}


def least_p(r: Result) -> float:
    """The least two-sided p that an interval over n prompts and k seeds allows.

    Its square is a sum of parts, each with its own Student's t (statistics.crossed_interval), so that p lies between
    those that either part alone would give.
    """
    share = abs(r.value) / ((r.high - r.low) / 2)
    freedoms = (len(r.seeds) - 1, r.n - 1)
    return min(2 * float(stdtr(df, -share * float(stdtrit(df, 0.975)))) for df in freedoms)
