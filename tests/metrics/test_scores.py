"""Rows from the scores of metrics: means over items, ratios over tokens, several scores of an item averaged first."""

import io
import math

import pytest
from rich.console import Console

from dlma.metrics.scores import part_tax, score_rows
from dlma.metrics.summary import Row
from dlma.records import MetricValue
from dlma.report.run_tables import tax as tax_table
from dlma.report.table import html
from dlma.report.terminal import print_tax


def column(name, kind, unit="", tax=False):
    return {"name": name, "label": f"the {name}", "kind": kind, "unit": unit, "better": "lower", "tax": tax}


def test_each_kind_is_averaged_as_it_says():
    scores = [
        MetricValue("a", None, "base", "cost", 1.0), MetricValue("b", None, "base", "cost", 4.0),
        MetricValue("a", None, "base", "loss", 6.0, 2.0), MetricValue("b", None, "base", "loss", 1.0, 5.0),
        MetricValue("a", None, "base", "bad", 1.0), MetricValue("b", None, "base", "bad", 0.0),
    ]  # fmt: skip
    columns = [column("cost", "mean"), column("loss", "exp_ratio"), column("bad", "share", "share")]
    rows = score_rows(scores, columns)
    assert [(r.metric, r.arm, r.label, r.better) for r in rows] == [
        (name, "base", f"the {name}", "lower") for name in ("cost", "loss", "bad")
    ]
    assert [r.estimate.value for r in rows] == pytest.approx([2.5, math.exp(7 / 7), 0.5])
    assert [r.estimate.n for r in rows] == [2, 2, 2]


def test_items_are_the_sample_not_their_scores():
    scores = [MetricValue("a", None, "base", "cost", v) for v in (0.0, 2.0)] + [
        MetricValue("b", None, "base", "cost", 4.0)
    ]
    (row,) = score_rows(scores, [column("cost", "mean")])
    assert row.estimate.value == 2.5 and row.estimate.n == 2


def test_arms_stay_apart_and_a_column_without_scores_is_left_out():
    scores = [MetricValue("a", None, arm, "cost", v) for arm, v in (("base", 1.0), ("aligned", 3.0))]
    rows = score_rows(scores, [column("cost", "mean"), column("other", "mean")])
    assert [(r.arm, r.estimate.value) for r in rows] == [("base", 1.0), ("aligned", 3.0)]


def test_the_tax_is_the_change_over_the_items_that_both_arms_have():
    values = {"base": [1.0, 1.0, 0.0, 1.0], "aligned": [1.0, 0.0, 0.0]}
    scores = [MetricValue(f"i{n}", None, arm, "skill", v) for arm, row in values.items() for n, v in enumerate(row)]
    rows = {(row.metric, row.arm): row for row in score_rows(scores, [column("skill", "share", "share", tax=True)])}
    change = rows["change/skill", "aligned"]
    assert change.estimate.value == pytest.approx(-1 / 3) and change.estimate.n == 3
    half = 4.302653 * math.sqrt(1 / 3) / math.sqrt(3)  # t(2), sd of (0, -1, 0)
    assert change.estimate.high - change.estimate.value == pytest.approx(half, rel=1e-5)
    kept, tax = part_tax([Row("kl", "base", change.estimate), *rows.values()])
    assert [row.metric for row in kept] == ["kl"] and len(tax) == 3
    out = io.StringIO()
    print_tax(tax, Console(file=out, width=120))
    for text in (html(tax_table(tax)), out.getvalue()):
        assert "the skill" in text and "-33.3 %" in text and "75.0 %" in text


def test_no_changed_item_does_not_claim_that_none_could_change():
    scores = [MetricValue(f"i{n}", None, arm, "skill", 1.0) for n in range(20) for arm in ("base", "aligned")]
    change = score_rows(scores, [column("skill", "share", "share", tax=True)])[-1].estimate
    assert change.value == 0 and change.high == -change.low == pytest.approx(1 - 0.025 ** (1 / 20))  # exact: 0 of 20


def test_the_change_of_a_ratio_is_the_difference_of_the_ratios():
    pairs = {"base": [(2.0, 1.0), (4.0, 2.0)], "aligned": [(3.0, 1.0), (9.0, 3.0)]}
    scores = [MetricValue(f"i{n}", None, arm, "loss", *v) for arm, row in pairs.items() for n, v in enumerate(row)]
    rows = score_rows(scores, [column("loss", "ratio", "nats/token", tax=True)])
    assert rows[-1].metric == "change/loss" and rows[-1].estimate.value == pytest.approx(12 / 4 - 6 / 3)


def test_without_a_policy_there_is_no_tax():
    scores = [MetricValue(f"i{n}", None, "base", "skill", 1.0) for n in range(3)]
    rows = score_rows(scores, [column("skill", "share", "share", tax=True)])
    assert part_tax(rows) == (rows, []) and [row.metric for row in rows] == ["skill"]
