"""Charts: well-formed SVG, marks where the data say, nothing unescaped."""

import itertools
import math
import re
from xml.etree import ElementTree

import pytest

from dlma.checks.margin_facts import Bin
from dlma.report.charts import axes as scales
from dlma.report.charts import run as charts_of
from dlma.report.charts.run import Series
from dlma.statistics.intervals import Estimate, share_interval


def test_ticks_are_round_and_inside():
    assert scales.ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert scales.ticks(-37, 41, 4) == [-20, 0, 20, 40]
    assert scales.ticks(3, 3) == [3]


def test_the_y_axis_points_up_and_every_step_has_a_tooltip():
    svg = charts_of.line_chart([Series("loss", "c-aligned", [1, 2, 3], [0.9, 0.5, 0.1])], "step", "Loss")
    root = ElementTree.fromstring(svg)
    (raw,) = [node for node in root.iter("polyline") if "raw" in node.get("class")]
    heights = [float(point.split(",")[1]) for point in raw.get("points").split()]
    assert heights == sorted(heights) and heights[0] < heights[-1]
    tips = [node.get("data-tip") for node in root.iter("rect")]
    assert tips == ["step 1: loss 0.9", "step 2: loss 0.5", "step 3: loss 0.1"]


def test_no_data_gives_no_chart():
    nothing = Series("loss", "c-aligned", [], [])
    broken = Series("loss", "c-aligned", [1.0], [float("nan")])
    assert charts_of.line_chart([nothing, broken], "step", "Loss") == "" and charts_of.reliability([]) == ""


def test_long_curves_are_thinned_to_means():
    line = charts_of.thinned(Series("x", "c", list(range(24000)), [float(i % 2) for i in range(24000)]))
    assert len(line.xs) == charts_of.MAX_POINTS and set(line.ys) == {0.5}


def test_the_histogram_counts_every_pair_by_its_truth():
    svg = charts_of.histogram([-1.0, 0.5, 0.51, 3.0], [-1.0, 0.0, 2.0, 1.0], -0.5, 2.0)
    root = ElementTree.fromstring(svg)
    bars = [node.get("class") for node in root.iter("rect")]
    assert sorted(bars) == ["bar c-better", "bar c-better", "bar c-tie", "bar c-worse"]
    clamps = [node.get("data-tip") for node in root.iter("line") if node.get("class") == "clamp"]
    assert clamps == ["clamp low −0.5", "clamp high 2"]


@pytest.mark.parametrize("margins", [[0.0, 0.0], [5.0], [-1e-9, 1e9]])
def test_odd_margins_draw(margins):
    ElementTree.fromstring(charts_of.histogram(margins, [None] * len(margins), None, None))


def test_reliability_shows_accuracy_interval_and_count():
    bins = [Bin(0.5, share_interval([True] * 12 + [False] * 8)), Bin(2.0, share_interval([True] * 20))]
    root = ElementTree.fromstring(charts_of.reliability(bins))
    tips = [node.get("data-tip") for node in root.iter("circle")]
    assert tips[0].startswith("|R| 0.5: accuracy 0.600 [0.387, 0.781], n 20") and len(tips) == 2


def test_text_is_escaped():
    svg = charts_of.line_chart([Series("<b>&", "c", [1], [1])], "<i>", 'a"><script>')
    assert not re.search(r"<(b|i|script)>", svg)
    ElementTree.fromstring(svg)
    ElementTree.fromstring(charts_of.forest([("c-base", Estimate(1.0, math.nan, math.nan, 1), "<b>")]))


def test_on_a_root_scale_equal_steps_are_equal_steps_of_the_root():
    scale = scales.RootScale(0.0, 9.0, 0.0, 300.0)
    assert [scale(value) for value in (0.0, 1.0, 4.0, 9.0)] == [0.0, 100.0, 200.0, 300.0]
    assert scale(-0.01) == 0.0  # an estimate of KL may come out below it


@pytest.mark.parametrize("high", [9.0, 5.3, 0.07, 1.0, 340.0])
def test_the_ticks_of_a_root_scale_are_round_and_nearly_evenly_apart_in_the_root(high):
    scale = scales.RootScale(0.0, high, 0.0, 300.0)
    ticks = scale.ticks(5)
    assert ticks[0] == 0.0 and ticks[-1] <= high and [float(f"{tick:.1g}") for tick in ticks[:-1]] == ticks[:-1]
    steps = [scale(b) - scale(a) for a, b in itertools.pairwise(ticks)]
    assert len(steps) == 4 and 2 * min(steps) > max(steps) > 0
