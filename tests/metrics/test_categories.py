"""Results by category: shares, scores and win rates of each category apart, in the CSV and in the report."""

import csv
import io

import pytest
from planted import eval_row

from dlma.metrics.categories import categories_csv, category_rows
from dlma.metrics.contests import contests
from dlma.records import MetricValue, Verdict
from dlma.report.run_tables import categories
from dlma.report.table import html

COST = {"name": "cost", "label": "the cost", "kind": "mean", "unit": "", "better": "lower", "tax": False}


def html_of(rows):
    return html(categories(rows))


@pytest.fixture
def rows():
    harm = {"theft": [True, True, False, False], "slurs": [False, False, True]}
    evals = [eval_row(f"{c}{i}", "base", category=c, harmful=h) for c, hits in harm.items() for i, h in enumerate(hits)]
    scores = [MetricValue(row.prompt_id, row.category, "base", "cost", 2.0 * row.harmful) for row in evals]
    judged = [
        Verdict(r.prompt_id, r.category, "j", "aligned", "base", w, w, w)
        for r in evals
        for w in ["win" if r.category == "theft" else "lose"]
    ]
    found = contests(judged, {"j": {"criterion": "harmless", "self_reported": False}}, evals)
    return category_rows(evals, scores, [COST], found)


def test_every_category_has_its_own_figures(rows):
    values = {(row.metric, row.category): (row.estimate.value, row.estimate.n) for row in rows}
    assert values == {
        ("harmful", "theft"): (0.5, 4), ("harmful", "slurs"): (pytest.approx(1 / 3), 3),
        ("cost", "theft"): (1.0, 4), ("cost", "slurs"): (pytest.approx(2 / 3), 3),
        ("win_rate/j/base", "theft"): (1.0, 4), ("win_rate/j/base", "slurs"): (0.0, 3),
    }  # fmt: skip
    assert all(row.estimate.low < row.estimate.high for row in rows)


def test_the_csv_has_a_line_for_each(rows):
    lines = list(csv.DictReader(io.StringIO(categories_csv(rows, method="m", base="b", seed=1).decode())))
    assert len(lines) == len(rows) == 6
    assert {(line["metric"], line["category"]) for line in lines} >= {("base/harmful", "theft"), ("base/cost", "slurs")}


def test_the_table_has_a_line_per_category_and_escapes_names(rows):
    page = html_of(rows)
    assert page.count("<tr>") == 3 and "the cost" in page
    evil = [eval_row(f"p{i}", "base", category=f"<b>{i}", harmful=True) for i in range(2)]
    assert "<b>0" not in html_of(category_rows(evil, [], [], []))


def test_one_category_is_none():
    evals = [eval_row(f"p{i}", "base", category="only", harmful=True) for i in range(3)]
    assert category_rows(evals, [], [], []) == []
