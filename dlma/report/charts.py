"""Small SVG charts, drawn by hand so that they are crisp, deterministic and follow the page's theme.

Colours come from CSS classes of the template (`c-base`, `c-better`, ...). Every mark carries `data-tip`,
which the page shows as a tooltip. Functions return SVG text; whatever text they are given is escaped.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from dlma.checks.margin_facts import CLASSES, Bin, truth_class
from dlma.report.scales import Scale, short, ticks
from dlma.statistics.intervals import Estimate

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 12, 38
RIGHT_SCALE = 44  # room for the numbers of a second scale
MAX_POINTS = 240


@dataclass(frozen=True)
class Series:
    name: str
    css: str
    xs: Sequence[float]
    ys: Sequence[float]
    smooth: bool = True


@dataclass(frozen=True)
class StepCurve:
    """Estimates at the steps of a figure."""

    name: str
    css: str
    values: Sequence[Estimate]


def _x_scale(low: float, high: float) -> Scale:
    return Scale(low, high, LEFT, WIDTH - RIGHT)


def _y_scale(low: float, high: float) -> Scale:
    return Scale(low, high, HEIGHT - BOTTOM, TOP)


def _frame(x: Scale, y: Scale, x_label: str, y_label: str, body: list[str], title: str) -> str:
    """Grid, axes and labels around the marks of `body`."""
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in ticks(y.low, y.high, 4):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{y(tick) + 3.5}" text-anchor="end">{short(tick)}</text>')
    for tick in ticks(x.low, x.high, 6):
        parts.append(
            f'<text class="tick" x="{x(tick)}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{short(tick)}</text>'
        )
    base = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="label" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    if y_label:
        spot = f'x="12" y="{(TOP + base) / 2}" transform="rotate(-90 12 {(TOP + base) / 2})"'
        parts.append(f'<text class="label" {spot} text-anchor="middle">{escape(y_label)}</text>')
    return "".join([*parts, *body, "</svg>"])


def _padded(values: Sequence[float], zero: bool = False) -> tuple[float, float]:
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    pad = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return low - (0.0 if zero and low == 0 else pad), high + pad


def thinned(series: Series) -> Series:
    """At most MAX_POINTS points, each the mean of a block; training curves of any length stay light."""
    keep = [(x, y) for x, y in zip(series.xs, series.ys) if math.isfinite(y)]
    if len(keep) > MAX_POINTS:
        blocks = np.array_split(np.array(keep), MAX_POINTS)
        keep = [tuple(block.mean(axis=0).tolist()) for block in blocks]
    return Series(series.name, series.css, [x for x, _ in keep], [y for _, y in keep], series.smooth)


def smoothed(values: Sequence[float]) -> list[float]:
    """Centred moving mean over about a twentieth of the curve."""
    half = len(values) // 40
    array = np.asarray(values)
    return [float(array[max(0, i - half) : i + half + 1].mean()) for i in range(len(values))]


def line_chart(series: Sequence[Series], x_label: str, title: str, zero: bool = False) -> str:
    """Each series as a faint raw line under its moving mean; one tooltip per x. No data, no chart ("")."""
    lines = [line for line in map(thinned, series) if line.xs]
    if not lines:
        return ""
    x = _x_scale(min(min(s.xs) for s in lines), max(max(s.xs) for s in lines))
    y = _y_scale(*_padded([value for s in lines for value in s.ys], zero))
    body = []
    if y.low < 0 < y.high:
        body.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(0)}" y2="{y(0)}"/>')
    for line in lines:
        if line.smooth:
            body.append(f'<polyline class="raw {line.css}" points="{_points(line.xs, line.ys, x, y)}"/>')
        strong = smoothed(line.ys) if line.smooth else line.ys
        body.append(f'<polyline class="line {line.css}" points="{_points(line.xs, strong, x, y)}"/>')
    return _frame(x, y, x_label, "", body + _hits(lines, x, x_label), title)


def two_scales(xs: Sequence[float], curves: Sequence[StepCurve], x_label: str, title: str, mark: float | None) -> str:
    """One or two curves with whiskers, each on a scale of its own: the first on the left, the second on the right.

    mark: an x that gets a dashed line
    """
    x = _x_scale(min(xs), max(xs) or 1.0)
    x = Scale(x.low, x.high, LEFT, WIDTH - RIGHT_SCALE)
    scales = [_y_scale(*_padded([bound for e in c.values for bound in _finite(e)])) for c in curves]
    body = []
    if mark is not None:
        tip = escape(f"{x_label} {short(mark)}: R and the judge part")
        body.append(
            f'<line class="clamp" x1="{x(mark)}" x2="{x(mark)}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" data-tip="{tip}"/>'
        )
    for curve, y in zip(curves, scales):
        body += _whiskers(xs, curve, x, y, x_label)
    for tick in ticks(scales[1].low, scales[1].high, 4) if len(scales) > 1 else []:
        spot = f'x="{WIDTH - RIGHT_SCALE + 6}" y="{scales[1](tick) + 3.5}"'
        body.append(f'<text class="tick" {spot}>{short(tick)}</text>')
    return _frame(x, scales[0], x_label, "", body, title) if scales else ""


def _finite(estimate: Estimate) -> list[float]:
    return [bound for bound in (estimate.value, estimate.low, estimate.high) if math.isfinite(bound)]


def _whiskers(xs: Sequence[float], curve: StepCurve, x: Scale, y: Scale, x_label: str) -> list[str]:
    body = [f'<polyline class="line {curve.css}" points="{_points(xs, [e.value for e in curve.values], x, y)}"/>']
    for at, e in zip(xs, curve.values):
        tip = escape(f"{x_label} {short(at)}: {curve.name} {short(e.value)} [{short(e.low)}, {short(e.high)}], n {e.n}")
        if math.isfinite(e.low) and math.isfinite(e.high):
            ends = f'x1="{x(at)}" x2="{x(at)}" y1="{y(e.low)}" y2="{y(e.high)}"'
            body.append(f'<line class="whisker {curve.css}" {ends}/>')
        body.append(f'<circle class="dot {curve.css}" cx="{x(at)}" cy="{y(e.value)}" r="4" data-tip="{tip}"/>')
    return body


def _points(xs: Sequence[float], ys: Sequence[float], x: Scale, y: Scale) -> str:
    return " ".join(f"{x(a)},{y(b)}" for a, b in zip(xs, ys))


def _hits(lines: list[Series], x: Scale, x_label: str) -> list[str]:
    """Invisible full-height strips, one per x, that carry the tooltips."""
    width = (WIDTH - LEFT - RIGHT) / len(lines[0].xs)
    found = {}
    for line in lines:
        for a, b in zip(line.xs, line.ys):
            found.setdefault(a, []).append(f"{line.name} {short(b)}")
    return [
        f'<rect class="hit" x="{x(a) - width / 2:.2f}" y="{TOP}" width="{width:.2f}" '
        f'height="{HEIGHT - TOP - BOTTOM}" data-tip="{escape(f"{x_label} {short(a)}: " + ", ".join(values))}"/>'
        for a, values in found.items()
    ]


def histogram(margins: Sequence[float], truth: Sequence[float | None], low: float | None, high: float | None) -> str:
    """R in about 40 bins, stacked by what the truth says; the clamp's bounds are dashed lines."""
    edges = np.linspace(*_span(margins), 41)
    classes = [truth_class(value) for value in truth]
    counts = {name: np.histogram([m for m, c in zip(margins, classes) if c == name], bins=edges)[0] for name in CLASSES}
    x, y = _x_scale(edges[0], edges[-1]), _y_scale(0, 1.05 * max(1, sum(counts.values()).max()))
    body = []
    for i, (left, right) in enumerate(itertools.pairwise(edges)):
        body += _stack({name: int(counts[name][i]) for name in CLASSES}, left, right, x, y)
    body.append(f'<line class="axis" x1="{x(0)}" x2="{x(0)}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for bound, name in ((low, "clamp low"), (high, "clamp high")):
        if bound is not None and x.low <= bound <= x.high:
            body.append(
                f'<line class="clamp" x1="{x(bound)}" x2="{x(bound)}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" '
                f'data-tip="{name} {short(bound)}"/>'
            )
    return _frame(x, y, "R, nats", "pairs", body, "Histogram of R")


def _span(margins: Sequence[float]) -> tuple[float, float]:
    low, high = min(0.0, *margins), max(0.0, *margins)
    return (low, high) if high > low else (-1.0, 1.0)


def _stack(counts: dict[str, int], left: float, right: float, x: Scale, y: Scale) -> list[str]:
    parts, floor = [], 0
    shown = ", ".join(f"{TRUTH_NAMES[name]} {count}" for name, count in counts.items() if count)
    tip = escape(f"R {short(left)} to {short(right)}: {shown}")
    for name, count in counts.items():
        if count:
            top = y(floor + count)
            parts.append(
                f'<rect class="bar c-{name}" x="{x(left) + 0.5:.2f}" width="{max(x(right) - x(left) - 1, 1):.2f}" '
                f'y="{top}" height="{y(floor) - top:.2f}" data-tip="{tip}"/>'
            )
            floor += count
    return parts


TRUTH_NAMES = {"better": "positive better", "tie": "tie", "worse": "positive worse", "unknown": "pairs"}


def reliability(bins: Sequence[Bin]) -> str:
    """How often sign(R) is right, against |R|; the dotted curve is 1 / (1 + exp(-|R|)), a calibrated log-odds."""
    if not bins:
        return ""
    x = _x_scale(0, 1.05 * max(item.size for item in bins) or 1.0)
    lowest = min(item.accuracy.low for item in bins)
    y = _y_scale(max(0.0, min(0.45, lowest - 0.02)), 1.02)
    grid = np.linspace(0, x.high, 60)
    curve = _points(grid, 1 / (1 + np.exp(-grid)), x, y)
    body = [
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(0.5)}" y2="{y(0.5)}"/>',
        f'<polyline class="dotted" points="{curve}"/>',
        f'<polyline class="line c-aligned" points="'
        f'{_points([b.size for b in bins], [b.accuracy.value for b in bins], x, y)}"/>',
    ]
    for item in bins:
        e = item.accuracy
        tip = f"|R| {short(item.size)}: accuracy {e.value:.3f} [{e.low:.3f}, {e.high:.3f}], n {e.n}"
        spot = x(item.size)
        body.append(f'<line class="whisker c-aligned" x1="{spot}" x2="{spot}" y1="{y(e.low)}" y2="{y(e.high)}"/>')
        body.append(f'<circle class="dot c-aligned" cx="{spot}" cy="{y(e.value)}" r="4" data-tip="{escape(tip)}"/>')
    return _frame(x, y, "|R|, nats (mean of the bin)", "accuracy of sign(R)", body, "Reliability of sign(R)")


def forest(items: Sequence[tuple[str, float, float, float, str]]) -> str:
    """One dot with a whisker per arm: (css class, value, low, high, tip). For a table row."""
    known = [bound for _, value, low, high, _ in items for bound in (value, low, high) if math.isfinite(bound)]
    x = Scale(*_padded(known), 4, 196)
    height = 11 * len(items) + 4
    parts = [f'<svg class="forest" viewBox="0 0 200 {height}" aria-hidden="true">']
    for i, (css, value, low, high, tip) in enumerate(items):
        y = 7.5 + 11 * i
        if math.isfinite(low) and math.isfinite(high):
            parts.append(f'<line class="whisker {css}" x1="{x(low)}" x2="{x(high)}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot {css}" cx="{x(value)}" cy="{y}" r="3.4" data-tip="{escape(tip)}"/>')
    return "".join([*parts, "</svg>"])


def ranking(items: Sequence[tuple[str, Estimate]], x_label: str, title: str) -> str:
    """A dot with a whisker per item, one below the other, in the order given."""
    left, step = 170, 22
    height = TOP + step * len(items) + BOTTOM
    x = Scale(*_padded([bound for _, e in items for bound in _finite(e)], zero=True), left, WIDTH - RIGHT)
    base = height - BOTTOM
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">']
    for tick in ticks(x.low, x.high, 5):
        parts.append(f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="{TOP}" y2="{base}"/>')
        parts.append(f'<text class="tick" x="{x(tick)}" y="{base + 15}" text-anchor="middle">{short(tick)}</text>')
    for number, (name, e) in enumerate(items):
        y = TOP + step * (number + 0.5)
        tip = escape(f"{name}: {short(e.value)} [{short(e.low)}, {short(e.high)}], n {e.n}")
        cut = name if len(name) <= 26 else f"{name[:25]}…"
        parts.append(f'<text class="label" x="{left - 8}" y="{y + 4}" text-anchor="end">{escape(cut)}</text>')
        if math.isfinite(e.low) and math.isfinite(e.high):
            parts.append(f'<line class="whisker c-aligned" x1="{x(e.low)}" x2="{x(e.high)}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot c-aligned" cx="{x(e.value)}" cy="{y}" r="4" data-tip="{tip}"/>')
    middle = (left + WIDTH - RIGHT) / 2
    parts.append(f'<text class="label" x="{middle}" y="{height - 5}" text-anchor="middle">{escape(x_label)}</text>')
    return "".join([*parts, "</svg>"])


def scatter(spots: Sequence[tuple[str, float, Estimate]], x_label: str, y_label: str, title: str) -> str:
    """A dot with a whisker per (name, x, y)."""
    x = _x_scale(*_padded([at for _, at, _ in spots]))
    y = _y_scale(*_padded([bound for _, _, e in spots for bound in _finite(e)]))
    body = []
    for name, at, e in spots:
        tip = escape(f"{name}: {short(at)}, {short(e.value)} [{short(e.low)}, {short(e.high)}], n {e.n}")
        if math.isfinite(e.low) and math.isfinite(e.high):
            ends = f'x1="{x(at)}" x2="{x(at)}" y1="{y(e.low)}" y2="{y(e.high)}"'
            body.append(f'<line class="whisker c-aligned" {ends}/>')
        body.append(f'<circle class="dot c-aligned" cx="{x(at)}" cy="{y(e.value)}" r="4" data-tip="{tip}"/>')
    return _frame(x, y, x_label, "", body, title)
