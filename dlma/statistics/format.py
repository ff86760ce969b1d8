"""Text of numbers: values, bounds and intervals as people read them."""

from __future__ import annotations

import math

from dlma.statistics.intervals import Estimate


def number(value: float, unit: str) -> str:
    """A value for people: percent for shares, else about three significant digits; a dash for nan."""
    if math.isnan(value):
        return "–"
    if unit == "share":
        return f"{100 * value:.1f} %"
    size = abs(value)
    return f"{value:.{0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3}f}"


def bounded(estimate: Estimate, unit: str) -> str:
    """A value with its bounds: "36.1 % [33.3, 39.2]"."""
    return f"{number(estimate.value, unit)} {interval(estimate, unit)}"


def interval(estimate: Estimate, unit: str) -> str:
    """The bounds for people: "[33.3, 39.2]"; the value's unit is not repeated."""
    low, high = (number(bound, unit).removesuffix(" %") for bound in (estimate.low, estimate.high))
    return f"[{low}, {high}]"


def exact(estimate: Estimate | None) -> list[str]:
    """Value, low and high as a CSV has them; what is not known is empty."""
    bounds = (math.nan,) * 3 if estimate is None else (estimate.value, estimate.low, estimate.high)
    return ["" if math.isnan(bound) else repr(bound) for bound in bounds]
