"""The win rate that an arm would have at equal length, by a logistic regression of the outcomes on the lengths.

    P(win) = sigmoid(a + b z),   z = (tokens of the arm's answer - tokens of the other) / their standard deviation

The figure is sigmoid(a). A tie counts as half a win and half a loss. After the length-controlled AlpacaEval (Dubois
et al. 2024), without its per-prompt difficulty and its tanh.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import expit, stdtrit

from dlma.statistics.intervals import LEVEL, Estimate

_STEPS = 100
_ENOUGH = 1e-10  # the step at which the fit has settled
_FLAT = 1e10  # condition number of the information beyond which the likelihood is flat in some direction
_LARGEST = 15.0  # log-odds; beyond it the lengths (all but) decide, and there is no finite fit


def length_controlled(points: Sequence[float], differences: Sequence[float]) -> Estimate | None:
    """The rate with its 95 % interval (sandwich covariance, Student's t on the log-odds).

    points: 1 for a win, 0.5 for a tie, 0 for a loss; differences: in tokens
    None where it cannot be known: fewer than 10 pairs, equal lengths throughout, or lengths that decide everything
    """
    y, z = np.asarray(points, dtype=float), np.asarray(differences, dtype=float)
    if len(y) < 10 or z.std() == 0 or y.min() == y.max():
        return None
    design = np.column_stack([np.ones_like(z), z / z.std()])
    found = _fit(design, y)
    if found is None:
        return None
    parts = (design * (y - expit(design @ found))[:, None]) @ np.linalg.inv(_information(design, found))
    error = math.sqrt(float((parts[:, 0] ** 2).sum()) * len(y) / (len(y) - 2))
    half = float(stdtrit(len(y) - 2, 0.5 + LEVEL / 2)) * error
    low, value, high = (float(expit(found[0] + step)) for step in (-half, 0.0, half))
    return Estimate(value, low, high, len(y))


def _information(design: np.ndarray, weights: np.ndarray) -> np.ndarray:
    share = expit(design @ weights)
    return design.T @ (design * (share * (1 - share))[:, None])


def _fit(design: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """The maximum of the likelihood by Newton's method, a step that overshoots being halved; None where it runs off."""
    weights = np.zeros(2)
    for _ in range(_STEPS):
        information = _information(design, weights)
        if np.linalg.cond(information) > _FLAT:
            return None
        step = np.linalg.solve(information, design.T @ (y - expit(design @ weights)))
        while _loss(design, y, weights + step) > _loss(design, y, weights) and np.abs(step).max() >= _ENOUGH:
            step = step / 2
        weights = weights + step
        if np.abs(weights).max() > _LARGEST:
            return None
        if np.abs(step).max() < _ENOUGH:
            return weights
    return None


def _loss(design: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    line = design @ weights
    return float((np.logaddexp(0.0, line) - y * line).sum())
