"""The charts of a sweep's report as SVG: bars with intervals, win/tie/lose, heat maps, frontiers. Text is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dlma.report.scales import RootScale, Scale, short, ticks
from dlma.statistics.format import bounded, number
from dlma.statistics.intervals import Estimate

COLOURS = ("#2563d9", "#dd6b2b", "#1d8f5f", "#8a4fd0", "#c0392b", "#0e8fa3", "#b7791f", "#5b6577", "#c2418f", "#5a7d1c")
LABELS, PLOT, LINE = 210, 380, 22


def colour(i: int) -> str:
    """The style attribute of the i-th setting."""
    return f'style="--c:{COLOURS[i % len(COLOURS)]}"'


def _clip(text: str, most: int = 34) -> str:
    return escape(text if len(text) <= most else text[: most - 1] + "…")


def bars(items: Sequence[tuple[str, Estimate]], unit: str, title: str) -> str:
    """One bar per setting from 0, with its interval as a whisker; items without finite values are left out."""
    kept = [(i, name, e) for i, (name, e) in enumerate(items) if math.isfinite(e.value)]
    if not kept:
        return ""
    ends = [0.0] + [v for _, _, e in kept for v in (e.value, e.low, e.high) if math.isfinite(v)]
    pad = 0.04 * (max(ends) - min(ends)) or 1.0
    x = Scale(min(ends) - (pad if min(ends) < 0 else 0), max(ends) + pad, LABELS, LABELS + PLOT)
    foot = LINE * len(kept) + 6
    parts = [_open(LABELS + PLOT + 10, foot + 20, title), *_x_axis(x, foot, 100 if unit == "share" else 1)]
    for place, (i, name, e) in enumerate(kept):
        y, tip = 6 + LINE * place, escape(f"{name}: {bounded(e, unit)}, n {e.n:,}")
        left, right = sorted((x(0), x(e.value)))
        parts.append(f'<text class="label" x="{LABELS - 8}" y="{y + 13}" text-anchor="end">{_clip(name)}</text>')
        parts.append(
            f'<rect class="bar" {colour(i)} x="{left}" y="{y + 3}" width="{max(right - left, 0.5):.2f}" '
            f'height="{LINE - 8}" opacity=".55" data-tip="{tip}"/>'
        )
        if math.isfinite(e.low) and math.isfinite(e.high):
            middle = y + LINE / 2 - 1
            parts.append(
                f'<line class="whisker" {colour(i)} x1="{x(e.low)}" x2="{x(e.high)}" y1="{middle}" y2="{middle}"/>'
            )
    return "".join([*parts, "</svg>"])


def _open(width: float, height: float, title: str) -> str:
    return (
        f'<svg class="chart" style="max-width:{width:.0f}px" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">'
    )


def _x_axis(x: Scale, foot: float, times: int) -> list[str]:
    parts = []
    for tick in x.ticks(5):
        parts.append(f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="4" y2="{foot}"/>')
        shown = short(tick * times)
        parts.append(f'<text class="tick" x="{x(tick)}" y="{foot + 14}" text-anchor="middle">{shown}</text>')
    return parts


def wins(items: Sequence[tuple[str, float, float, float]], title: str) -> str:
    """Shares of wins, ties and losses of each setting, stacked to 1."""
    if not items:
        return ""
    parts = [_open(LABELS + PLOT + 10, LINE * len(items) + 12, title)]
    for place, (name, *shares) in enumerate(items):
        y, left = 6 + LINE * place, float(LABELS)
        parts.append(f'<text class="label" x="{LABELS - 8}" y="{y + 13}" text-anchor="end">{_clip(name)}</text>')
        for kind, css, share in zip(("wins", "ties", "losses"), ("c-better", "c-tie", "c-worse"), shares):
            width, tip = PLOT * share, escape(f"{name}: {kind} {100 * share:.1f} %")
            parts.append(
                f'<rect class="bar {css}" x="{left:.2f}" y="{y + 2}" width="{width:.2f}" height="{LINE - 6}" '
                f'data-tip="{tip}"/>'
            )
            left += width
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True)
class Axis:
    """One axis of a heat map: its name and its values in order."""

    name: str
    values: list[str]


def heat(x: Axis, y: Axis, values: dict[tuple[str, str], Estimate], unit: str, title: str) -> str:
    """A cell per (x, y), darker where larger; the number stands in it, the interval in its tooltip.

    The axes are named by the last part of their overrides.
    """
    known = [e.value for e in values.values() if math.isfinite(e.value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    wide, tall, left, top = 84, 34, 130, 44
    parts = [_open(left + wide * len(x.values) + 10, top + tall * len(y.values) + 8, title)]
    across, down = (_clip(axis.name.rpartition(".")[2], 18) for axis in (x, y))
    parts.append(f'<text class="label" x="{left}" y="14">{across} →</text>')
    parts.append(f'<text class="label" x="{left - 8}" y="32" text-anchor="end">{down} ↓</text>')
    for column, name in enumerate(x.values):
        middle = left + wide * (column + 0.5)
        parts.append(f'<text class="label" x="{middle}" y="32" text-anchor="middle">{_clip(_level(name), 12)}</text>')
    for line, name in enumerate(y.values):
        foot = top + tall * (line + 0.5)
        parts.append(
            f'<text class="label" x="{left - 8}" y="{foot + 4}" text-anchor="end">{_clip(_level(name), 16)}</text>'
        )
        for column, other in enumerate(x.values):
            if (other, name) in values:
                share = (values[other, name].value - low) / ((high - low) or 1.0)
                parts += _heat_cell(left + wide * column, top + tall * line, share, values[other, name], unit)
    return "".join([*parts, "</svg>"])


def _level(text: str) -> str:
    """A number of an axis, a very large one shortly."""
    return f"{float(text):g}" if abs(float(text)) >= 1e6 else text


def _heat_cell(x: float, y: float, share: float, e: Estimate, unit: str) -> list[str]:
    tip = escape(bounded(e, unit))
    return [
        f'<rect class="bar" style="--c:#2563d9" x="{x + 1}" y="{y + 1}" width="82" height="32" '
        f'opacity="{0.08 + 0.6 * share:.3f}" data-tip="{tip}"/>',
        f'<text class="label" style="fill:var(--ink);pointer-events:none" x="{x + 42}" y="{y + 21}" '
        f'text-anchor="middle">{escape(number(e.value, unit))}</text>',
    ]


@dataclass(frozen=True)
class Line:
    """A curve of the frontier: its points as (label, KL or what else lies across, height)."""

    name: str
    points: list[tuple[str, Estimate, Estimate]]


KL_ACROSS = "KL to the base, nats"


def frontier(
    lines: Sequence[Line], levels: Sequence[float], unit: str, y_label: str, x_label: str = KL_ACROSS, low: float = 0.0
) -> str:
    """Height against KL on a scale of its root, an interval each way; dashed: the KLs at which methods are compared.

    x_label, low: what else lies across, and where it begins
    """
    points = [(kl, y) for line in lines for _, kl, y in line.points]
    if not points:
        return ""
    wide, tall, left, foot = 620, 360, 54, 318
    scale = RootScale if x_label == KL_ACROSS else Scale
    x = scale(low, low + (1.05 * (max(_ends([kl for kl, _ in points])) - low) or 1.0), left, wide - 12)
    ys = _ends([y for _, y in points])
    pad = 0.05 * (max(ys) - min(ys)) or 0.1
    y = Scale(min(ys) - pad, max(ys) + pad, foot, 10)
    parts = [_open(wide, tall, f"{y_label} against {x_label}"), *_x_axis(x, foot, 1)]
    for tick in ticks(y.low, y.high, 5):
        shown = short(tick * (100 if unit == "share" else 1))
        parts.append(f'<line class="grid" x1="{left}" x2="{wide - 12}" y1="{y(tick)}" y2="{y(tick)}"/>')
        parts.append(f'<text class="tick" x="{left - 7}" y="{y(tick) + 3.5}" text-anchor="end">{shown}</text>')
    for level in (level for level in levels if level <= x.high):
        parts.append(f'<line class="dotted" x1="{x(level)}" x2="{x(level)}" y1="10" y2="{foot}"/>')
    parts += [mark for i, line in enumerate(lines) for mark in _curve(i, line, x, y, unit, x_label)]
    middle = (left + wide) / 2
    parts.append(f'<text class="label" x="{middle}" y="{tall - 6}" text-anchor="middle">{escape(x_label)}</text>')
    turn = f'x="12" y="{foot / 2}" transform="rotate(-90 12 {foot / 2})" text-anchor="middle"'
    parts.append(f'<text class="label" {turn}>{escape(y_label)}{", %" if unit == "share" else ""}</text>')
    return "".join([*parts, "</svg>"])


def _ends(values: Sequence[Estimate]) -> list[float]:
    return [v for e in values for v in (e.value, e.low, e.high) if math.isfinite(v)]


def _curve(i: int, line: Line, x: Scale, y: Scale, unit: str, x_label: str) -> list[str]:
    points, across = sorted(line.points, key=lambda point: point[1].value), "KL" if x_label == KL_ACROSS else x_label
    path = " ".join(f"{x(kl.value)},{y(h.value)}" for _, kl, h in points)
    parts = [f'<polyline class="line" {colour(i)} points="{path}"/>']
    for name, kl, h in points:
        if all(math.isfinite(v) for v in (kl.low, kl.high, h.low, h.high)):
            spots = [(kl.low, kl.high, h.value, h.value), (kl.value, kl.value, h.low, h.high)]
            parts += [
                f'<line class="whisker" {colour(i)} x1="{x(max(a, x.low))}" x2="{x(b)}" y1="{y(c)}" y2="{y(d)}"/>'
                for a, b, c, d in spots
            ]
        tip = escape(f"{name}: {across} {bounded(kl, '')}, {bounded(h, unit)}")
        parts.append(f'<circle class="dot" {colour(i)} cx="{x(kl.value)}" cy="{y(h.value)}" r="4" data-tip="{tip}"/>')
    return parts


def legend(names: Sequence[str]) -> str:
    keys = "".join(f'<span class="key" {colour(i)}>{escape(name)}</span>' for i, name in enumerate(names))
    return f'<div class="legend">{keys}</div>'
