"""How a result stands in a table: its metric as a head, its value, difference, verdict and needs as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dlma.metrics.summary import arrow, better, label
from dlma.report.table import NOTHING, Text, Value, line
from dlma.statistics.format import bounded, interval, number
from dlma.sweep.estimates import BY_NAME
from dlma.sweep.results import Result, no_worse, within

READ_AT = {"kl": "KL", "flops": "FLOPs"}  # what a curve is read at
SHORT = {
    "harmful": "harmful",
    "kl": "KL, nats",
    "malformed": "malformed",
    "sentiment": "sentiment (VADER)",
    "perplexity": "perplexity",
    "tokens": "length",
    "distinct_2": "distinct-2",
    "beyond_curve": "beyond the curve at its KL",
    "refused_safe": "refusals of safe prompts",
}
NEITHER = "neither alone"  # prompts hide it however many seeds, and seeds however many prompts, or a curve's own error
NEEDED = {"needed": "prompts to see this difference", "needed_seeds": "seeds to see it"}
FURTHER_SHARES = ("refused_safe",)  # measured beyond the summary's metrics, and read at the same KL
MARGIN = 0.03  # three points: what "no worse" means for a share unless the reader says otherwise


def head(metric: str) -> str:
    """A metric as a column's head, with the wanted direction."""
    return SHORT.get(metric, label(metric)) + arrow(metric)


def what(one: Result) -> str:
    """The metric of a result, and where it was read."""
    at = "" if one.at is None else f" at {READ_AT[one.axis]} {one.at:.3g}"
    return SHORT.get(one.metric, label(one.metric)) + at + arrow(one.metric)


def unit(metric: str) -> str:
    return BY_NAME[metric].unit if metric in BY_NAME else "share" if metric in FURTHER_SHARES else ""


def value(one: Result | None) -> Value | None:
    """A number in its metric's unit."""
    return None if one is None else Value(one.estimate, unit(one.metric))


def cell(one: Result | None) -> str:
    """A value with its bounds for people."""
    return "–" if one is None else bounded(one.estimate, unit(one.metric))


def changed(one: Result) -> Text:
    """A difference with its sign, in points for shares; a ratio with its sign of multiplication."""
    if one.statistic == "ratio":
        return Text(f"×{number(one.value, '')}", bounds=interval(one.estimate, ""), strong=True)
    shown = "share" if unit(one.metric) == "share" else ""
    values = [number(value, shown).removesuffix(" %") for value in (one.value, one.low, one.high)]
    first, low, high = [value if value.startswith(("-", "–")) else f"+{value}" for value in values]
    return Text(first, bounds=f"[{low}, {high}]" + (" points" if shown else ""), strong=True)


def change(one: Result) -> str:
    """The same on one line."""
    return line(changed(one))


def p_text(p: float) -> str:
    return "–" if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def needed_text(one: Result, needed: float, of: str = "needed") -> str:
    if math.isnan(needed) or one.value == 0:
        return NOTHING
    otherwise = "more seeds, not prompts" if of == "needed" else "more prompts, not seeds"
    return otherwise if math.isinf(needed) else f"{needed:,.0f}"


def bound_text(one: Result, margin: float) -> str:
    """How much worse it may still be, and whether that is within the margin (for shares)."""
    bound = no_worse(one, better(one.metric))
    if bound is None:
        return "–"
    if unit(one.metric) != "share":
        return number(bound.worst, "")
    verdict = "no worse" if bound.holds(margin) else "not shown"
    return f"{100 * bound.worst:.1f} points ({verdict})"


def gap_text(gap: Result | None) -> str:
    """The two places around a reading: "0.41–0.88"."""
    if gap is None:
        return NOTHING
    scale = 1e12 if gap.axis == "flops" else 1.0
    return "–".join(f"{place / scale:.2f}" for place in (gap.low, gap.high))


def missed_text(one: Result | None) -> str:
    if one is None:
        return NOTHING
    return points_text(one.value) if unit(one.metric) == "share" else number(one.value, "")


def points_text(value: float) -> str:
    return f"{100 * value:.1f} points"


def same(one: Result, margin: float, gaps: Sequence[Result | None] = ()) -> str:
    """Whether a difference of shares is shown to be smaller than the margin; `gaps` as `within` takes them."""
    if unit(one.metric) != "share" or math.isnan(one.low):
        return NOTHING
    return within_text(one, margin, gaps)


def within_text(one: Result, margin: float, gaps: Sequence[Result | None] = ()) -> str:
    """The same of a difference of anything, by a margin on its own scale."""
    return {True: "yes", False: "no", None: "not shown"}[within(one, margin, gaps)]
