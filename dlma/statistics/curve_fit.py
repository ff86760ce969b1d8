"""A curve through a few points: monotone by least squares, straight between two of them; and what it misses.

Heights stand on the scale on which a curve is close to straight: the logit of a share, anything else as it is. Where a
point lies on the wrong side of its neighbour, both take their mean (isotonic regression), in the direction, falling or
rising, that misses the points by less. What the line between two points misses is that of a curve bent by b: b times
the product of the distances to both (the remainder of linear interpolation); b is read off points left out in turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit


@dataclass(frozen=True)
class HeightScale:
    """The logit of a share of `n` answers, each all or nothing; with n 0 the value itself.

    A share y counts as (n y + 1/2) / (n + 1), so that none and all have a logit (Haldane 1956, Anscombe 1956).
    """

    n: int = 0

    def to(self, value: ArrayLike) -> np.ndarray:
        values = np.asarray(value, dtype=np.float64)
        return logit((self.n * values + 0.5) / (self.n + 1)) if self.n else values

    def back(self, height: float) -> float:
        return ((self.n + 1) * float(expit(height)) - 0.5) / self.n if self.n else height

    def slope(self, height: ArrayLike) -> np.ndarray:
        """By how much the value moves with the height."""
        share = expit(np.asarray(height, dtype=np.float64))
        return share * (1 - share) * (self.n + 1) / self.n if self.n else np.ones_like(share)


@dataclass(frozen=True)
class FitReading:
    """A fit at a place: its height there, and where it comes from.

    weights: (points,), of each point's height in it; they add up to 1
    first: the point before it, `share` of the way to the next; slope: of the line between them
    room: the product of the distances to both; gap: their sum
    """

    height: float
    weights: np.ndarray
    first: int
    share: float
    slope: float
    room: float
    gap: float


@dataclass(frozen=True, eq=False)
class Bend:
    """By what curves miss the points that are left out of them: `errors`, (points,), of readings of these `rooms`."""

    errors: np.ndarray
    rooms: np.ndarray

    @property
    def count(self) -> int:
        return len(self.rooms)

    def error(self, reading: FitReading) -> tuple[float, float]:
        """(standard deviation of what a reading's line misses, its degrees of freedom); (0, 1) where no point is known.

        The bend is the root of sum of errors^2 / sum of rooms^2 over the points that left no more room than the middle
        of a gap twice as wide as the reading's has, since what a far larger one hides says nothing of it; over all
        where none did. Its degrees of freedom are Satterthwaite's, (sum of rooms^2)^2 / sum of rooms^4, for an error
        counts by its room. The noise of the points counts as bend too, so that it comes out too large rather than too
        small.
        """
        if not self.count:
            return 0.0, 1.0
        near = self.rooms <= reading.gap**2
        near = near if near.any() else np.ones_like(near)
        squares = np.square(self.rooms[near])
        bend = math.sqrt(float(np.square(self.errors[near]).sum() / squares.sum()))
        return bend * reading.room, max(1.0, float(squares.sum() ** 2 / np.square(squares).sum()))


def summed(errors: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """The error of a sum of readings, each (sd, degrees of freedom): independent errors, sized by the same points left
    out, so that their degrees of freedom do not add up; the fewest of them.
    """
    known = [(sd, df) for sd, df in errors if sd > 0]
    return (math.hypot(*(sd for sd, _ in known)), min(df for _, df in known)) if known else (0.0, 1.0)


def read(places: Sequence[float], heights: ArrayLike, at: float, *, monotone: bool) -> FitReading | None:
    """The fit through points with ascending places; None outside of them."""
    z = np.asarray(heights, dtype=np.float64)
    averages = _monotone(z) if monotone else np.eye(len(z))
    fitted = averages @ z
    for i, (low, high) in enumerate(pairwise(places)):
        if low <= at <= high and high > low:
            share = (at - low) / (high - low)
            weights = (1 - share) * averages[i] + share * averages[i + 1]
            slope = float(fitted[i + 1] - fitted[i]) / (high - low)
            return FitReading(float(weights @ z), weights, i, share, slope, (at - low) * (high - at), high - low)
    return None


def _monotone(z: np.ndarray) -> np.ndarray:
    """(points, points): which mean of the points each fitted height is."""
    from scipy.optimize import isotonic_regression  # a part of scipy that takes a while to import

    found = [isotonic_regression(z, increasing=rising) for rising in (False, True)]
    better = min(found, key=lambda fit: float(((fit.x - z) ** 2).sum()))
    averages = np.zeros((len(z), len(z)))
    for low, high in pairwise(better.blocks):
        averages[low:high, low:high] = 1 / (high - low)
    return averages


def left_out(places: Sequence[float], heights: ArrayLike, *, monotone: bool) -> list[tuple[int, float, float]]:
    """Each point between two others, read off the fit without it: (which, height read, the reading's room)."""
    z, found = np.asarray(heights, dtype=np.float64), []
    for i in range(1, len(z) - 1):
        without = [place for j, place in enumerate(places) if j != i]
        reading = read(without, np.delete(z, i), places[i], monotone=monotone)
        if reading is not None and reading.room > 0:
            found.append((i, reading.height, reading.room))
    return found


def bend(curves: Iterable[tuple[Sequence[float], ArrayLike]], *, monotone: bool) -> Bend:
    """What these curves, of (places, heights), are bent by: each point between two others left out in turn."""
    errors, rooms = [], []
    for places, heights in curves:
        z = np.asarray(heights, dtype=np.float64)
        for i, height, room in left_out(places, z, monotone=monotone):
            errors.append(height - z[i])
            rooms.append(room)
    return Bend(np.array(errors), np.array(rooms))
