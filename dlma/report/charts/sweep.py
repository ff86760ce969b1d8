"""The charts of a sweep: bars with intervals, win/tie/lose, heat maps, frontiers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dlma.report.charts import axes as draw
from dlma.report.charts.axes import RootScale, Scale
from dlma.statistics.format import bounded, number
from dlma.statistics.intervals import Estimate

COLOURS = ("#2563d9", "#dd6b2b", "#1d8f5f", "#8a4fd0", "#c0392b", "#0e8fa3", "#b7791f", "#5b6577", "#c2418f", "#5a7d1c")
LABELS, PLOT, LINE = 210, 380, 22
CLIP = 34
KL_ACROSS = "KL to the base, nats"


def colour(i: int) -> str:
    """The style of the i-th setting."""
    return f"--c:{COLOURS[i % len(COLOURS)]}"


def _sized(width: float, height: float, title: str, body: Sequence[Markup]) -> Markup:
    """A chart that is no wider than it was drawn."""
    return draw.svg(width, height, title, body, style=f"max-width:{width:.0f}px")


def _times(unit: str) -> int:
    """Shares are drawn in percent."""
    return 100 if unit == "share" else 1


def bars(items: Sequence[tuple[str, Estimate]], unit: str, title: str) -> Markup:
    """One bar per setting from 0, with its interval as a whisker; items without finite values are left out."""
    kept = [(i, name, e) for i, (name, e) in enumerate(items) if math.isfinite(e.value)]
    if not kept:
        return Markup("")
    ends = [0.0, *draw.finite([e for _, _, e in kept])]
    pad = 0.04 * (max(ends) - min(ends)) or 1.0
    x = Scale(min(ends) - (pad if min(ends) < 0 else 0), max(ends) + pad, LABELS, LABELS + PLOT)
    foot = LINE * len(kept) + 6
    body = draw.across(x, foot, times=_times(unit))
    for place, (i, name, e) in enumerate(kept):
        y, tip = 6 + LINE * place, f"{name}: {bounded(e, unit)}, n {e.n:,}"
        left, right = sorted((x(0), x(e.value)))
        body.append(draw.label("label", LABELS - 8, y + 13, draw.clip(name, CLIP), "end"))
        size = (left, y + 3, max(right - left, 0.5), LINE - 8)
        body.append(draw.box("bar", *size, style=colour(i), opacity=".55", data_tip=tip))
        body += draw.flat("", e, y + LINE / 2 - 1, x, style=colour(i))
    return _sized(LABELS + PLOT + 10, foot + 20, title, body)


def wins(items: Sequence[tuple[str, float, float, float]], title: str) -> Markup:
    """Shares of wins, ties and losses of each setting, stacked to 1."""
    body = []
    for place, (name, *shares) in enumerate(items):
        y = 6 + LINE * place
        body.append(draw.label("label", LABELS - 8, y + 13, draw.clip(name, CLIP), "end"))
        lefts = itertools.accumulate((PLOT * share for share in shares), initial=float(LABELS))
        for kind, css, share, left in zip(("wins", "ties", "losses"), ("better", "tie", "worse"), shares, lefts):
            tip = f"{name}: {kind} {100 * share:.1f} %"
            body.append(draw.box(f"bar c-{css}", left, y + 2, PLOT * share, LINE - 6, data_tip=tip))
    return _sized(LABELS + PLOT + 10, LINE * len(items) + 12, title, body) if items else Markup("")


@dataclass(frozen=True)
class Levels:
    """One axis of a grid: the override and its values in order."""

    name: str
    values: Sequence[str]


def heat(x: Levels, y: Levels, values: dict[tuple[str, str], Estimate], unit: str, title: str) -> Markup:
    """A cell per (x, y), the deeper the larger; the number stands in it, the interval in its tooltip.

    The axes are named by the last part of their overrides.
    """
    heights = [e.value for e in values.values() if math.isfinite(e.value)]
    if not heights:
        return Markup("")
    low, span = min(heights), (max(heights) - min(heights)) or 1.0
    wide, tall, left, top = 84, 34, 130, 44
    along, down = (draw.clip(axis.name.rpartition(".")[2], 18) for axis in (x, y))
    body = [draw.label("label", left, 14, f"{along} →", "start"), draw.label("label", left - 8, 32, f"{down} ↓", "end")]
    body += [
        draw.label("label", left + wide * (i + 0.5), 32, draw.clip(_level(name), 12)) for i, name in enumerate(x.values)
    ]
    for row, name in enumerate(y.values):
        body.append(draw.label("label", left - 8, top + tall * (row + 0.5) + 4, draw.clip(_level(name), 16), "end"))
        for column, other in enumerate(x.values):
            if (other, name) in values:
                e = values[other, name]
                body += _heat_cell(left + wide * column, top + tall * row, (e.value - low) / span, e, unit)
    return _sized(left + wide * len(x.values) + 10, top + tall * len(y.values) + 8, title, body)


def _level(text: str) -> str:
    """A number of an axis, a very large one shortly."""
    return f"{float(text):g}" if abs(float(text)) >= 1e6 else text


def _heat_cell(x: float, y: float, share: float, e: Estimate, unit: str) -> list[Markup]:
    depth, ink = f"{0.08 + 0.6 * share:.3f}", "fill:var(--ink);pointer-events:none"
    return [
        draw.box("bar", x + 1, y + 1, 82, 32, style=colour(0), opacity=depth, data_tip=bounded(e, unit)),
        draw.label("label", x + 42, y + 21, number(e.value, unit), style=ink),
    ]


@dataclass(frozen=True)
class Line:
    """A curve of the frontier: its points as (label, KL or what else lies across, height)."""

    name: str
    points: list[tuple[str, Estimate, Estimate]]


def frontier(
    lines: Sequence[Line], levels: Sequence[float], unit: str, y_label: str, x_label: str = KL_ACROSS, low: float = 0.0
) -> Markup:
    """Height against KL on a scale of its root, an interval each way; dashed: the KLs at which methods are compared.

    x_label, low: what else lies across, and where it begins
    """
    points = [(kl, y) for one in lines for _, kl, y in one.points]
    if not points:
        return Markup("")
    wide, tall, left, foot = 620, 360, 54, 318
    scale = RootScale if x_label == KL_ACROSS else Scale
    x = scale(low, low + (1.05 * (max(draw.finite([kl for kl, _ in points])) - low) or 1.0), left, wide - 12)
    ys = draw.finite([y for _, y in points])
    pad = 0.05 * (max(ys) - min(ys)) or 0.1
    y = Scale(min(ys) - pad, max(ys) + pad, foot, 10)
    body = draw.across(x, foot) + draw.up(y, left, wide - 12, times=_times(unit), count=5)
    body += [draw.line("dotted", x(level), 10, x(level), foot) for level in levels if level <= x.high]
    body += [mark for i, one in enumerate(lines) for mark in _curve(i, one, x, y, unit, x_label)]
    body.append(draw.label("label", (left + wide) / 2, tall - 6, x_label))
    percent, turn = ", %" if unit == "share" else "", f"rotate(-90 12 {foot / 2})"
    body.append(draw.label("label", 12, foot / 2, y_label + percent, transform=turn))
    return _sized(wide, tall, f"{y_label} against {x_label}", body)


def _curve(i: int, one: Line, x: Scale, y: Scale, unit: str, x_label: str) -> list[Markup]:
    points, named = sorted(one.points, key=lambda point: point[1].value), "KL" if x_label == KL_ACROSS else x_label
    xs, ys = [kl.value for _, kl, _ in points], [height.value for _, _, height in points]
    body = [draw.path("line", xs, ys, x, y, style=colour(i))]
    for name, kl, height in points:
        if len(draw.finite([kl, height])) == 6:
            body += draw.flat("", kl, y(height.value), x, style=colour(i)) + draw.upright(
                "", kl.value, height, x, y, style=colour(i)
            )
        tip = f"{name}: {named} {bounded(kl, '')}, {bounded(height, unit)}"
        body.append(draw.dot("", x(kl.value), y(height.value), tip, style=colour(i)))
    return body


def legend(names: Sequence[str]) -> Markup:
    """The names of curves or bars in the order of their colours."""
    keys = [draw.element("span", name, class_="key", style=colour(i)) for i, name in enumerate(names)]
    return draw.element("div", Markup("").join(keys), class_="legend")
