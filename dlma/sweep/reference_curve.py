"""Harm beyond that of a reference curve at the same KL: what a setting does besides going further from the base.

The curve is a method's in another sweep's results.csv: from the base at KL 0 through its settings, between two of them
a line in the root of KL, as in sweep_frontier. With K a run's mean KL, c the curve and s its slope in the root there, a
prompt with harm y and KL k adds y - c(K) - s (k - K) / (2 root of K): the delta method for a value read off at a KL
that was itself measured. The curve counts as known, without an error of its own.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dlma.errors import UserError
from dlma.metrics.summary import BEYOND
from dlma.runs.folder import Arm, Cell
from dlma.sweep.curves import is_number, off, root, values_of
from dlma.sweep.estimates import Result, read_csv
from dlma.sweep.rows import whole

HARM = "harmful"


Curve = tuple[np.ndarray, np.ndarray]  # roots of KL, ascending from the base's 0, and the harm there


def read(path: Path, method: str) -> dict[str, Curve]:
    """The curve of a method's settings that differ in numbers, or of a setting by its label, per base that has one.

    Raises UserError where the file is none, or has no such setting beside its base.
    """
    try:
        found = read_csv(path)
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as reason:
        raise UserError(f"sweep.reference={path}: no results.csv of a sweep ({reason})") from reason
    curves = {}
    for base in dict.fromkeys(row.base for row in found):
        table = whole(found, base)
        both = {name: row for name, row in table.items() if HARM in row and "kl" in row}
        told = [row for name, row in both.items() if name != "base" and _is_of(name, method)]
        own = [row for row in told if row["kl"].mean > 0]  # one that is not told from the base makes no curve
        if own and "base" in both:
            curves[base] = _curve(both["base"], own)
    if not curves:
        raise UserError(f"sweep.reference={path}: no curve of {method} from its base in there")
    return curves


def _is_of(name: str, method: str) -> bool:
    """Whether a setting is the method itself, or differs from its other settings in numbers only."""
    first, *told = name.split(", ")
    return name == method or (first == method and all(is_number(part.partition("=")[2]) for part in told))


def _curve(base: Mapping[str, Result], rows: Sequence[Mapping[str, Result]]) -> Curve:
    """From the base through these settings; of several at one KL the mean harm."""
    points: dict[float, list[float]] = {0.0: [base[HARM].mean]}
    for row in rows:
        points.setdefault(root(row["kl"].mean), []).append(row[HARM].mean)
    roots = sorted(points)
    return np.array(roots), np.array([np.mean(points[each]) for each in roots])


def beside(cells: Iterable[Cell], curves: Mapping[str, Curve]) -> list[Cell]:
    """The same cells, their answers measured against the curve too wherever it reaches their KL.

    Raises UserError where none of the cells is on a base that has a curve.
    """
    found = [_measured(cell, curves[cell.base]) if cell.base in curves else cell for cell in cells]
    done = {cell.base for cell in found if cell.arms}
    if done and not done & curves.keys():
        raise UserError(f"sweep.reference: curves of {', '.join(curves)} only, not of {', '.join(sorted(done))}")
    return found


def _measured(cell: Cell, curve: Curve) -> Cell:
    arms = {name: _with(arm, curve) for name, arm in cell.arms.items()}
    return replace(cell, arms=arms, metrics={**cell.metrics, BEYOND.name: BEYOND})


def _with(arm: Arm, curve: Curve) -> Arm:
    if HARM not in arm.numbers or "kl" not in arm.numbers:
        return arm
    roots, heights = curve
    y, k = (values_of(arm, arm.prompts, name) for name in (HARM, "kl"))
    level = root(float(np.nanmean(k)))
    if level > roots[-1]:
        return arm
    place = int(np.clip(np.searchsorted(roots, level, side="right"), 1, len(roots) - 1))  # the end of the piece here
    slope = (heights[place] - heights[place - 1]) / (roots[place] - roots[place - 1])
    beyond = y - (heights[place - 1] + slope * (level - roots[place - 1])) - slope * off(k)
    return replace(arm, numbers={**arm.numbers, BEYOND.name: np.stack([beyond, np.ones_like(beyond)], axis=1)})
