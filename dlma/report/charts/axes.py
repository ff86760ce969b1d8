"""What all charts share: scales with round numbers, SVG elements that escape what they hold, frames with axes.

Drawn by hand so that charts are crisp, deterministic and follow the page's theme: colours come from CSS classes of
the template (`c-base`, `c-better`, ...). Every mark carries `data-tip`, which the page shows as a tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dlma.statistics.intervals import Estimate

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 12, 38


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
        """From 0 to the highest round number, nearly evenly apart in the root: each has one digit."""
        most = ticks(0.0, self.high, 2)[-1]
        inner = [float(f"{most * (i / (count - 1)) ** 2:.1g}") for i in range(count - 1)]
        return [*inner, most]


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


def finite(estimates: Iterable[Estimate]) -> list[float]:
    """Values and bounds that a chart has to hold."""
    return [bound for e in estimates for bound in (e.value, e.low, e.high) if math.isfinite(bound)]


def padded(values: Sequence[float], zero: bool = False) -> tuple[float, float]:
    """The ends of an axis around values; zero: it reaches 0."""
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    pad = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return low - (0.0 if zero and low == 0 else pad), high + pad


def said(e: Estimate) -> str:
    """An estimate for a tooltip."""
    return f"{short(e.value)} [{short(e.low)}, {short(e.high)}], n {e.n}"


def clip(text: str, most: int) -> str:
    """Text of at most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


# Elements


def element(tag: str, content: str | Markup = "", /, **attributes: object) -> Markup:
    """An SVG element; `class_` stands for class, `x_y` for x-y; whatever is no Markup is escaped."""
    named = [(name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items()]
    inside = Markup("").join(Markup(' {}="{}"').format(name, value) for name, value in named)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), inside, content)


def svg(width: float, height: float, title: str, body: Iterable[Markup], /, **attributes: object) -> Markup:
    """A whole chart; `title` is what a screen reader says."""
    view, attributes = f"0 0 {width:.0f} {height:.0f}", {"class_": "chart", **attributes}
    return element("svg", Markup("").join(body), viewBox=view, role="img", aria_label=title, **attributes)


def line(css: str, x1: float, y1: float, x2: float, y2: float, **attributes: object) -> Markup:
    return element("line", class_=css, x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def label(css: str, x: float, y: float, text: str, anchor: str = "middle", **attributes: object) -> Markup:
    return element("text", text, class_=css, x=x, y=y, text_anchor=anchor, **attributes)


def box(css: str, x: float, y: float, width: float, height: float, **attributes: object) -> Markup:
    """A rectangle; sizes in pixels are rounded to hundredths."""
    sizes = {name: round(value, 2) for name, value in zip(("x", "y", "width", "height"), (x, y, width, height))}
    return element("rect", class_=css, **sizes, **attributes)


def dot(css: str, x: float, y: float, tip: str, **attributes: object) -> Markup:
    return element("circle", class_=f"dot {css}".strip(), cx=x, cy=y, **{"r": 4, **attributes}, data_tip=tip)


def path(css: str, xs: Sequence[float], ys: Sequence[float], x: Scale, y: Scale, **attributes: object) -> Markup:
    """A line through points in data."""
    return element("polyline", class_=css, points=" ".join(f"{x(a)},{y(b)}" for a, b in zip(xs, ys)), **attributes)


def upright(css: str, at: float, e: Estimate, x: Scale, y: Scale, **attributes: object) -> list[Markup]:
    """The whisker of an estimate that stands at `at`; none without finite bounds."""
    if not (math.isfinite(e.low) and math.isfinite(e.high)):
        return []
    return [line(f"whisker {css}".strip(), x(at), y(e.low), x(at), y(e.high), **attributes)]


def flat(css: str, e: Estimate, height: float, x: Scale, **attributes: object) -> list[Markup]:
    """The whisker of an estimate that lies along x, at a height in pixels; none without finite bounds."""
    if not (math.isfinite(e.low) and math.isfinite(e.high)):
        return []
    return [line(f"whisker {css}".strip(), x(max(e.low, x.low)), height, x(e.high), height, **attributes)]


# Frames


def across(x: Scale, foot: float, *, times: int = 1, count: int = 5, top: float = 4) -> list[Markup]:
    """An x axis of grid lines from `top` to `foot`, and the numbers below."""
    lines = [line("grid", x(tick), top, x(tick), foot) for tick in x.ticks(count)]
    return lines + [label("tick", x(tick), foot + 14, short(tick * times)) for tick in x.ticks(count)]


def up(y: Scale, left: float, right: float, *, times: int = 1, count: int = 4) -> list[Markup]:
    """A y axis of grid lines from `left` to `right`, and the numbers to the left."""
    lines = [line("grid", left, y(tick), right, y(tick)) for tick in y.ticks(count)]
    return lines + [label("tick", left - 7, y(tick) + 3.5, short(tick * times), "end") for tick in y.ticks(count)]


def frame(x: Scale, y: Scale, x_label: str, body: Iterable[Markup], title: str, y_label: str = "") -> Markup:
    """Grid, axes and labels around the marks of `body`."""
    base, right, half = HEIGHT - BOTTOM, WIDTH - RIGHT, (TOP + HEIGHT - BOTTOM) / 2
    axes = up(y, LEFT, right)
    axes += [label("tick", x(tick), base + 15, short(tick)) for tick in x.ticks(6)]
    axes += [line("axis", LEFT, base, right, base), label("label", (LEFT + right) / 2, HEIGHT - 5, x_label)]
    axes += [label("label", 12, half, y_label, transform=f"rotate(-90 12 {half})")] if y_label else []
    return svg(WIDTH, HEIGHT, title, [*axes, *body])


def legend(keys: Iterable[tuple[str, str]]) -> Markup:
    """Names with their colours: (CSS class, name) each."""
    spans = [element("span", name, class_=f"key {css}") for css, name in keys]
    return element("div", Markup("").join(spans), class_="legend") if spans else Markup("")
