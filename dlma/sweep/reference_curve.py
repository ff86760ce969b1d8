"""Harm beyond that of a reference curve at the same KL: what a setting does besides going further from the base.

The curve is a method's in another sweep's results.csv: from the base at KL 0 through its settings, between two of them
a line in the root of KL, as in curves.py. With K a run's mean KL, c the curve and s its slope in the root there, a
prompt with harm y and KL k adds y - c(K) - s (k - K) / (2 root of K): the delta method for a value read off at a KL
that was itself measured. The curve counts as known, without an error of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dlma.errors import UserError
from dlma.metrics.summary import BEYOND
from dlma.runs.cells import Arm, Cell
from dlma.sweep.curves import between, is_number, off, root, values_of
from dlma.sweep.results import ALIGNED, Result, bases, by_row, over_seeds, read_csv

HARM = "harmful"
Known = tuple[np.ndarray, np.ndarray]  # roots of KL, ascending from the base's 0, and the harm there


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
    """From the base through these settings; of several at one KL the mean harm."""
    points: dict[float, list[float]] = {0.0: [base[HARM].value]}
    for row in rows:
        points.setdefault(root(row["kl"].value), []).append(row[HARM].value)
    roots = sorted(points)
    return np.array(roots), np.array([np.mean(points[each]) for each in roots])


def beside(cells: Iterable[Cell], curves: Mapping[str, Known]) -> list[Cell]:
    """The same cells, their answers measured against the curve too wherever it reaches their KL.

    Raises UserError where none of the cells is on a base that has a curve.
    """
    found = [_measured(cell, curves[cell.base]) if cell.base in curves else cell for cell in cells]
    done = {cell.base for cell in found if cell.arms}
    if done and not done & curves.keys():
        raise UserError(f"sweep.reference: curves of {', '.join(curves)} only, not of {', '.join(sorted(done))}")
    return found


def _measured(cell: Cell, curve: Known) -> Cell:
    arms = {name: _with(arm, curve) for name, arm in cell.arms.items()}
    return replace(cell, arms=arms, metrics={**cell.metrics, BEYOND.name: BEYOND})


def _with(arm: Arm, curve: Known) -> Arm:
    if HARM not in arm.numbers or "kl" not in arm.numbers:
        return arm
    roots, heights = curve
    y, k = (values_of(arm, arm.prompts, name) for name in (HARM, "kl"))
    found = between(roots, root(float(np.nanmean(k))))
    if found is None:
        return arm
    i, weight, width = found
    low, high = heights[i : i + 2]
    beyond = y - ((1 - weight) * low + weight * high) - (high - low) / width * off(k)
    return replace(arm, numbers={**arm.numbers, BEYOND.name: np.stack([beyond, np.ones_like(beyond)], axis=1)})
