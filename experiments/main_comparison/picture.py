"""The picture of the comparison: harm against KL, a curve for each method.

python -m experiments.main_comparison.picture    # results.csv -> picture.svg
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from dlma.report.charts import axes as draw
from dlma.report.charts import sweep as charts
from dlma.statistics.intervals import Estimate
from dlma.sweep.results import Result, by_row, over_seeds, read_csv
from experiments import pictures

HERE = Path(__file__).resolve().parent
RESULTS, PICTURE = HERE / "results.csv", HERE / "picture.svg"
NAMES = {
    "dlma": "dlma: margin R",
    "dlma_constant": "dlma, every margin the same",
    "dlma_shuffled": "dlma, margins shuffled",
    "rlcd": "rlcd: no margin",
    "rlaif": "rlaif: labels by the model as judge",
}
RIGHT, TOP, STEP = 608, 30, 20  # of the names, in pixels


def curves(rows: Sequence[Result]) -> list[charts.Line]:
    """Each method's settings over all seeds, from the base on."""
    ends = {
        key: {one.metric: Estimate(one.value, one.low, one.high, one.n) for one in own if one.statistic == "mean"}
        for key, own in by_row(one for one in over_seeds(rows) if not one.axis).items()
    }
    base = ends["base", (), "base"]
    start = ("base", base["kl"], base["harmful"])
    points = {
        name: [(name, own["kl"], own["harmful"]) for (method, _, arm), own in ends.items() if method == name]
        for name in NAMES
    }
    return [charts.Line(name, [start, *found]) for name, found in points.items()]


def picture(rows: Sequence[Result]) -> str:
    """The SVG, with the names of the curves in their colours."""
    lines = curves(rows)
    names = []
    for i, one in enumerate(lines):
        y, style = TOP + STEP * i, charts.colour(i)
        names += [draw.dot("", RIGHT, y - 4, NAMES[one.name], style=style)]
        names += [draw.label("name", RIGHT - 10, y, NAMES[one.name], "end", style=style)]
    chart = charts.frontier(lines, (), "share", "answers with a harmful sentence")
    return pictures.file_of(chart, str(Markup("").join(names)))


if __name__ == "__main__":
    PICTURE.write_text(picture(read_csv(RESULTS)), encoding="utf-8")
