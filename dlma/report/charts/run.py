"""The charts of a run: curves of training, the distribution of R, how often its sign is right, dots with whiskers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from markupsafe import Markup

from dlma.checks.margin_facts import CLASSES, Bin, truth_class
from dlma.report.charts import axes as draw
from dlma.report.charts.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale
from dlma.statistics.intervals import Estimate

RIGHT_SCALE = 44  # room for the numbers of a second scale
MAX_POINTS, BINS = 240, 40
TRUTH_NAMES = {"better": "positive better", "tie": "tie", "worse": "positive worse", "unknown": "pairs"}


@dataclass(frozen=True)
class Series:
    name: str
    css: str
    xs: Sequence[float]
    ys: Sequence[float]
    smooth: bool = True
    style: str = ""


@dataclass(frozen=True)
class Steps:
    """Estimates at the steps of a figure."""

    name: str
    css: str
    values: Sequence[Estimate]


def _x_scale(low: float, high: float) -> Scale:
    return Scale(low, high, LEFT, WIDTH - RIGHT)


def _y_scale(low: float, high: float) -> Scale:
    return Scale(low, high, HEIGHT - BOTTOM, TOP)


def _level(y: Scale, value: float) -> Markup:
    """A line across."""
    return draw.line("axis", LEFT, y(value), WIDTH - RIGHT, y(value))


def _upright(css: str, x: Scale, value: float, **attributes: object) -> Markup:
    """A line from the top to the bottom."""
    return draw.line(css, x(value), TOP, x(value), HEIGHT - BOTTOM, **attributes)


def thinned(series: Series) -> Series:
    """At most MAX_POINTS points, each the mean of a block; training curves of any length stay light."""
    keep = [(x, y) for x, y in zip(series.xs, series.ys) if math.isfinite(y)]
    if len(keep) > MAX_POINTS:
        ends = [i * len(keep) // MAX_POINTS for i in range(MAX_POINTS + 1)]
        blocks = [keep[a:b] for a, b in itertools.pairwise(ends)]
        keep = [(fmean(x for x, _ in block), fmean(y for _, y in block)) for block in blocks]
    return replace(series, xs=[x for x, _ in keep], ys=[y for _, y in keep])


def smoothed(values: Sequence[float]) -> list[float]:
    """Centred moving mean over about a twentieth of the curve."""
    half = len(values) // 40
    return [fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def line_chart(series: Sequence[Series], x_label: str, title: str, zero: bool = False) -> Markup:
    """Each series as a faint raw line under its moving mean; one tooltip per x. No data, no chart ("")."""
    lines = [one for one in map(thinned, series) if one.xs]
    if not lines:
        return Markup("")
    x = _x_scale(min(min(s.xs) for s in lines), max(max(s.xs) for s in lines))
    y = _y_scale(*draw.padded([value for s in lines for value in s.ys], zero))
    body = [_level(y, 0)] if y.low < 0 < y.high else []
    for one in lines:
        own = {"style": one.style} if one.style else {}
        body += [draw.path(f"raw {one.css}", one.xs, one.ys, x, y, **own)] if one.smooth else []
        body.append(draw.path(f"line {one.css}", one.xs, smoothed(one.ys) if one.smooth else one.ys, x, y, **own))
    return draw.frame(x, y, x_label, body + _hits(lines, x, x_label), title)


def _hits(lines: list[Series], x: Scale, x_label: str) -> list[Markup]:
    """Invisible full-height strips, one per x, that carry the tooltips."""
    width = (WIDTH - LEFT - RIGHT) / len(lines[0].xs)
    found: dict[float, list[str]] = {}
    for one in lines:
        for a, b in zip(one.xs, one.ys):
            found.setdefault(a, []).append(f"{one.name} {draw.short(b)}")
    return [
        draw.box(
            *("hit", x(a) - width / 2, TOP, width, HEIGHT - TOP - BOTTOM),
            data_tip=f"{x_label} {draw.short(a)}: {', '.join(values)}",
        )
        for a, values in found.items()
    ]


def two_scales(xs: Sequence[float], curves: Sequence[Steps], x_label: str, title: str, mark: float | None) -> Markup:
    """One or two curves with whiskers, each on a scale of its own: the first on the left, the second on the right.

    mark: an x that gets a dashed line
    """
    x = Scale(min(xs), max(xs) or 1.0, LEFT, WIDTH - RIGHT_SCALE)
    scales = [_y_scale(*draw.padded(draw.finite(curve.values))) for curve in curves]
    parts = f"{x_label} {draw.short(mark)}: R and the judge part" if mark is not None else ""
    body = [] if mark is None else [_upright("clamp", x, mark, data_tip=parts)]
    for curve, y in zip(curves, scales):
        body.append(draw.path(f"line {curve.css}", xs, [e.value for e in curve.values], x, y))
        for at, e in zip(xs, curve.values):
            body += draw.upright(curve.css, at, e, x, y)
            body.append(
                draw.dot(curve.css, x(at), y(e.value), f"{x_label} {draw.short(at)}: {curve.name} {draw.said(e)}")
            )
    for y in scales[1:]:
        body += [
            draw.label("tick", WIDTH - RIGHT_SCALE + 6, y(tick) + 3.5, draw.short(tick), "start")
            for tick in draw.ticks(y.low, y.high, 4)
        ]
    return draw.frame(x, scales[0], x_label, body, title) if scales else Markup("")


def histogram(
    margins: Sequence[float], truth: Sequence[float | None], low: float | None, high: float | None, symbol: str = "R"
) -> Markup:
    """Margins in BINS bins, stacked by what the truth says; the clamp's bounds are dashed lines.

    symbol: what they are called; R is in nats
    """
    first, last = _span(margins)
    width = (last - first) / BINS
    counts = [dict.fromkeys(CLASSES, 0) for _ in range(BINS)]
    for margin, value in zip(margins, truth, strict=True):
        counts[min(BINS - 1, int((margin - first) / width))][truth_class(value)] += 1
    x, y = _x_scale(first, last), _y_scale(0, 1.05 * max(1, *(sum(each.values()) for each in counts)))
    body = []
    for i, each in enumerate(counts):
        left, right = first + i * width, first + (i + 1) * width
        body += _stack(each, left, right, x, y, f"{symbol} {draw.short(left)} to {draw.short(right)}")
    body.append(_upright("axis", x, 0))
    for bound, name in ((low, "clamp low"), (high, "clamp high")):
        if bound is not None and x.low <= bound <= x.high:
            body.append(_upright("clamp", x, bound, data_tip=f"{name} {draw.short(bound)}"))
    return draw.frame(x, y, "R, nats" if symbol == "R" else symbol, body, f"Histogram of {symbol}", "pairs")


def _span(margins: Sequence[float]) -> tuple[float, float]:
    low, high = min(0.0, *margins), max(0.0, *margins)
    return (low, high) if high > low else (-1.0, 1.0)


def _stack(counts: dict[str, int], left: float, right: float, x: Scale, y: Scale, bin: str) -> list[Markup]:
    shown = ", ".join(f"{TRUTH_NAMES[name]} {count}" for name, count in counts.items() if count)
    tip, parts, floor = f"{bin}: {shown}", [], 0
    for name, count in counts.items():
        if count:
            top, width = y(floor + count), max(x(right) - x(left) - 1, 1)
            parts.append(draw.box(f"bar c-{name}", x(left) + 0.5, top, width, y(floor) - top, data_tip=tip))
            floor += count
    return parts


def reliability(bins: Sequence[Bin], symbol: str = "R") -> Markup:
    """How often the sign of R is right, against |R|; the dotted curve is 1 / (1 + exp(-|R|)), a calibrated log-odds."""
    if not bins:
        return Markup("")
    x = _x_scale(0, 1.05 * max(item.size for item in bins) or 1.0)
    y = _y_scale(max(0.0, min(0.45, min(item.accuracy.low for item in bins) - 0.02)), 1.02)
    grid = [x.high * i / 59 for i in range(60)]
    body = [_level(y, 0.5), draw.path("dotted", grid, [1 / (1 + math.exp(-at)) for at in grid], x, y)]
    body.append(draw.path("line c-aligned", [b.size for b in bins], [b.accuracy.value for b in bins], x, y))
    for item in bins:
        e = item.accuracy
        tip = f"|{symbol}| {draw.short(item.size)}: accuracy {e.value:.3f} [{e.low:.3f}, {e.high:.3f}], n {e.n}"
        body += [*draw.upright("c-aligned", item.size, e, x, y), draw.dot("c-aligned", x(item.size), y(e.value), tip)]
    below = f"|{symbol}|{', nats' if symbol == 'R' else ''} (mean of the bin)"
    return draw.frame(x, y, below, body, f"Reliability of the sign of {symbol}", "accuracy of the sign")


def forest(items: Sequence[tuple[str, Estimate, str]]) -> Markup:
    """One dot with a whisker per arm: (CSS class, estimate, tip). For a table row."""
    x, height = Scale(*draw.padded(draw.finite([e for _, e, _ in items])), 4, 196), 11 * len(items) + 4
    body = []
    for i, (css, e, tip) in enumerate(items):
        y = 7.5 + 11 * i
        body += [*draw.flat(css, e, y, x), draw.dot(css, x(e.value), y, tip, r=3.4)]
    return draw.svg(200, height, "", body, class_="forest", aria_hidden="true")


def shares(parts: Sequence[tuple[str, float, str]]) -> Markup:
    """Shares as one bar: (CSS class, share, tip) each; what is left over stays blank. For a table row."""
    starts = itertools.accumulate((200 * share for _, share, _ in parts), initial=0.0)
    body = [
        draw.box(f"bar {css}", start, 0, 200 * share, 8, data_tip=tip)
        for start, (css, share, tip) in zip(starts, parts)
    ]
    return draw.svg(200, 8, "", body, class_="shares", width=200, height=8)


def ranking(items: Sequence[tuple[str, Estimate]], x_label: str, title: str) -> Markup:
    """A dot with a whisker per item, one below the other, in the order given."""
    left, step = 170, 22
    height = TOP + step * len(items) + BOTTOM
    x, base = Scale(*draw.padded(draw.finite([e for _, e in items]), zero=True), left, WIDTH - RIGHT), height - BOTTOM
    body = [draw.line("grid", x(tick), TOP, x(tick), base) for tick in x.ticks(5)]
    body += [draw.label("tick", x(tick), base + 15, draw.short(tick)) for tick in x.ticks(5)]
    for place, (name, e) in enumerate(items):
        y = TOP + step * (place + 0.5)
        body += [draw.label("label", left - 8, y + 4, draw.clip(name, 26), "end"), *draw.flat("c-aligned", e, y, x)]
        body.append(draw.dot("c-aligned", x(e.value), y, f"{name}: {draw.said(e)}"))
    body.append(draw.label("label", (left + WIDTH - RIGHT) / 2, height - 5, x_label))
    return draw.svg(WIDTH, height, title, body)


def scatter(spots: Sequence[tuple[str, float, Estimate]], x_label: str, title: str) -> Markup:
    """A dot with a whisker per (name, x, y)."""
    x = _x_scale(*draw.padded([at for _, at, _ in spots]))
    y = _y_scale(*draw.padded(draw.finite([e for _, _, e in spots])))
    body = []
    for name, at, e in spots:
        body += draw.upright("c-aligned", at, e, x, y)
        body.append(draw.dot("c-aligned", x(at), y(e.value), f"{name}: {draw.short(at)}, {draw.said(e)}"))
    return draw.frame(x, y, x_label, body, title)


def heat_text(tokens: Sequence[tuple[float, str, bool]], scale: float) -> Markup:
    """Tokens on a ground of their reward, full colour from `scale` on: (reward, text, underlined) each."""
    spans = []
    for reward, piece, underlined in tokens:
        depth, colour = round(70 * min(1.0, abs(reward) / scale)), "--better" if reward > 0 else "--worse"
        ground = f"background:color-mix(in srgb,var({colour}) {depth}%,transparent)"
        mark = ";text-decoration:underline" if underlined else ""
        spans.append(draw.element("span", piece, style=ground + mark, data_tip=f"{reward:+.3f} nats"))
    return Markup("").join(spans)
