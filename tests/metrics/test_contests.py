"""Win, tie and lose: planted outcomes are counted exactly, shares add up, and a judge of itself says so."""

import io

import pytest
from planted import eval_row
from rich.console import Console

from dlma.metrics import contests as verdicts
from dlma.metrics.contests import contests
from dlma.records import Verdict
from dlma.report.run_tables import contests as contest_table
from dlma.report.table import html
from dlma.report.terminal import print_contests

OUTCOMES = ["win"] * 5 + ["tie"] * 2 + ["lose"] * 2 + ["unparsed"]


def planted(outcomes=OUTCOMES, judge="j", categories=None):
    orders = {"win": ("win", "win"), "tie": ("win", "lose"), "lose": ("lose", "tie"), "unparsed": ("unparsed", "win")}
    categories = categories or [None] * len(outcomes)
    return [
        Verdict(f"p{i}", category, judge, "aligned", "base", *orders[outcome], outcome)
        for i, (outcome, category) in enumerate(zip(outcomes, categories, strict=True))
    ]


def evals(lengths=None):
    lengths = lengths or [(10, 10)] * len(OUTCOMES)
    return [
        eval_row(f"p{i}", arm, tokens=n) for i, pair in enumerate(lengths) for arm, n in zip(("aligned", "base"), pair)
    ]


def notes(self_reported=False):
    return {"j": {"criterion": "harmless", "self_reported": self_reported}}


def test_only_judges_apart_from_the_run_speak_of_its_gain():
    for apart in (True, False):
        (one,) = contests(planted(), notes(not apart), evals())
        wins = verdicts.independent_wins([one])
        assert wins == ({"j (harmless)": one.found["win_rate"]} if apart else {})
    nobody = contests(planted(["unparsed"] * 10), notes(), evals())
    assert verdicts.independent_wins(nobody) == {}


@pytest.fixture
def contest():
    (found,) = contests(planted(), notes(), evals())
    return found


def test_planted_outcomes_are_counted_exactly(contest):
    values = {name: estimate.value for name, estimate in contest.found.items()}
    assert values["win"] == 0.5 and values["tie"] == 0.2 and values["lose"] == 0.2 and values["unparsed"] == 0.1
    assert values["win_rate"] == pytest.approx((5 + 1) / 9)
    assert values["consistent"] == pytest.approx(5 / 9)  # the wins; ties are split, the losses hold a tie
    assert contest.found["win_rate"].n == 9 and contest.found["win"].n == 10


def test_rows_name_judge_and_opponent(contest):
    rows = {row.metric: row for row in contest.rows()}
    assert rows["win_rate/j/base"].arm == "aligned"
    assert rows["unparsed/j/base"].estimate.value == 0.1
    assert all(row.unit == "share" for row in rows.values())


def test_nothing_parsed_leaves_no_win_rate():
    (found,) = contests(planted(["unparsed"] * 3), notes(), evals())
    assert found.found["unparsed"].value == 1 and "win_rate" not in found.found


def test_a_judge_of_itself_is_headed_so_wherever_it_stands():
    (found,) = contests(planted(), notes(self_reported=True), evals())
    assert found.heading == "j (self-reported)"
    assert all("self-reported" in row.label for row in found.rows())
    assert "j (self-reported)" in section([found]) and "j (self-reported)" in printed([found])
    (other,) = contests(planted(), notes(), evals())
    assert "j (self-reported)" not in section([other])


def test_categories_have_win_rates_of_their_own():
    names = ["b"] * 5 + ["a"] * 5
    (found,) = contests(planted(categories=names), notes(), evals())
    assert {name: (e.value, e.n) for name, e in found.categories.items()} == {"a": (0.25, 4), "b": (1.0, 5)}
    (alone,) = contests(planted(), notes(), evals())
    assert alone.categories == {}


def test_the_rate_at_equal_length_is_there_where_lengths_differ():
    lengths = [(10 + i % 4, 10) for i in range(40)]
    (found,) = contests(planted(OUTCOMES * 4), notes(), evals(lengths))
    assert "win_rate_lc" in found.found
    (equal,) = contests(planted(OUTCOMES * 4), notes(), evals([(10, 10)] * 40))
    assert "win_rate_lc" not in equal.found


def section(found):
    return html(contest_table(found, verdicts.COLUMNS))


def printed(found, width=120):
    out = io.StringIO()
    print_contests(found, Console(file=out, width=width))
    return out.getvalue()


def test_the_terminal_shows_one_line_per_contest_and_nothing_without_judges(contest):
    text = printed([contest])
    assert "66.7 %" in text and "50.0 / 20.0 / 20.0 %" in text and "10.0 %" in text
    assert printed([]) == ""


def test_text_from_outside_is_escaped():
    bad = "<script>x</script>"
    (found,) = contests(planted(judge=bad), {bad: notes()["j"]}, evals())
    assert bad not in section([found])


def test_every_column_has_a_heading():
    (found,) = contests(planted(OUTCOMES * 4), notes(), evals([(10 + i % 4, 10) for i in range(40)]))
    assert set(found.found) == set(verdicts.COLUMNS)
