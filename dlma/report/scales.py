"""The axes of charts: from data to pixels, and the round numbers on them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """A linear axis: `low`..`high` in data to `start`..`stop` in pixels."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + share * (self.stop - self.start), 2)

    def ticks(self, count: int) -> list[float]:
        """About so many round numbers on it."""
        return ticks(self.low, self.high, count)


@dataclass(frozen=True)
class RootScale(Scale):
    """An axis from 0 along the root of what it shows."""

    def __call__(self, value: float) -> float:
        return Scale(0.0, math.sqrt(self.high), self.start, self.stop)(math.sqrt(max(0.0, value)))

    def ticks(self, count: int) -> list[float]:
        """From 0 to the highest round number, evenly apart in the root."""
        most = ticks(0.0, self.high, 2)[-1]
        return [most * (i / (count - 1)) ** 2 for i in range(count)]


def short(value: float) -> str:
    """A number for an axis or a tooltip."""
    return f"{value:.4g}".replace("-", "−")


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within [low, high], about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]
