"""An SVG file of a report's chart, for a page: readable on a light and on a dark ground."""

from __future__ import annotations

from markupsafe import Markup

STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #333 } .grid { stroke: #ddd } .axis, .dotted { stroke: #888 }
.dotted { stroke-dasharray: 3 4 } .name { font-weight: 600 }
.line { fill: none; stroke: var(--c, #1668b8); stroke-width: 2 }
.whisker { stroke: var(--c, #1668b8); stroke-width: 2 } .dot { fill: var(--c, #1668b8) }
@media (prefers-color-scheme: dark) {
text { fill: #ddd } .grid { stroke: #444 } .axis, .dotted { stroke: #888 }
.line, .whisker { stroke: var(--c, #6bb1f5) } .dot { fill: var(--c, #6bb1f5) }
}
</style>"""


def file_of(chart: Markup, more: str = "") -> str:
    """The text of the file; `more` is drawn over the chart. The size is that of the chart's viewBox."""
    start, rest = str(chart).split(">", 1)
    width, height = start.split('viewBox="0 0 ')[1].split('"')[0].split(" ")
    inside = rest.removesuffix("</svg>") + more
    return f'{start} xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{STYLE}{inside}</svg>\n'
