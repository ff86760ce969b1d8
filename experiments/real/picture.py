"""The picture of the real model's results: the sentiment of each arm, and its KL.

python -m experiments.real.picture    # results.csv -> picture.svg
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlma.metrics.summary import SENTIMENT
from dlma.report.charts import axes as draw
from dlma.report.charts.axes import LEFT, TOP, WIDTH, Scale
from dlma.statistics.intervals import Estimate
from dlma.sweep.results import Result, read_csv
from experiments import pictures

HERE = Path(__file__).resolve().parent
RESULTS, PICTURE = HERE / "results.csv", HERE / "picture.svg"
STEP = 46  # pixels of a line
NAMES = {"base": "base", "prompted": "base, asked to be joyful", "aligned": "aligned by DLMA"}


def picture(rows: Sequence[Result]) -> str:
    """The SVG: a line for each arm, with its sentiment, the interval and the KL that it took."""
    moods = {arm: _of(rows, arm, SENTIMENT.name) for arm in NAMES}
    x, foot = Scale(*draw.padded(draw.finite(moods.values())), LEFT, WIDTH - LEFT), TOP + STEP * len(NAMES)
    body = draw.across(x, foot)
    for place, (arm, mood) in enumerate(moods.items()):
        y = TOP + STEP * (place + 0.7)
        body += [*draw.flat("", mood, y, x), draw.dot("", x(mood.value), y, NAMES[arm])]
        said = f"{NAMES[arm]}: {mood.value:.2f}, KL {_of(rows, arm, 'kl').value:.1f} nats"
        body.append(draw.label("name", (x(x.low) + x(x.high)) / 2, y - 12, said))
    body.append(
        draw.label("label", (x(x.low) + x(x.high)) / 2, foot + 34, "sentiment of the answers (VADER), 95 % intervals")
    )
    return pictures.file_of(draw.svg(WIDTH, foot + 44, "sentiment of each arm", body))


def _of(rows: Sequence[Result], arm: str, metric: str) -> Estimate:
    (found,) = [row for row in rows if (row.arm, row.metric, row.statistic) == (arm, metric, "mean")]
    return Estimate(found.value, found.low, found.high, found.n)


if __name__ == "__main__":
    PICTURE.write_text(picture(read_csv(RESULTS)))
