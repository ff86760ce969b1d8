"""The tables as text: every number with its interval, nothing that breaks out of a cell."""

import math

from dlma.report.tables import change, latex, markdown, tables
from dlma.sweep.results import Result
from dlma.sweep.rows import versuses, whole


def row(method, metric, mean, low, high, p=math.nan, seed="0+1", base="b"):
    return Result(method, base, seed, metric, 100, mean, low, high, p)


FOUND = [
    row("base", "harmful", 0.7, 0.65, 0.75),
    row("base", "kl", 0.0, 0.0, 0.0),
    row("x_<y>|z", "harmful", 0.3, 0.25, 0.35, 0.01),
    row("x_<y>|z", "harmful minus base", -0.4, -0.45, -0.35, 0.01),
    row("x_<y>|z", "harmful minus base, prompts needed", 17.0, math.nan, math.nan),
    row("x_<y>|z", "perplexity over base", 1.02, 0.99, 1.05, 1.0),
    row("x", "harmful at kl 1", 0.31, 0.28, 0.34),
]


def test_the_tables_say_what_the_rows_say():
    means, against, matched = tables(FOUND)
    assert means.heads == ["method", "harmful ↓", "KL, nats", "seeds", "prompts"]
    assert means.rows == [
        ["base", "70.0 % [65.0, 75.0]", "0.000 [0.000, 0.000]", "2", "100"],
        ["x_<y>|z", "30.0 % [25.0, 35.0]", "–", "2", "100"],
    ]
    assert against.rows[0][1:] == ["harmful ↓", "-40.0 [-45.0, -35.0] points", "0.0100", "0.0 points (no worse)", "17"]
    assert against.rows[1][1:] == ["perplexity", "×1.020 [0.990, 1.050]", "1.0000", "–", "–"]
    assert matched.rows == [["x", "harmful ↓", "31.0 % [28.0, 34.0]"]] and matched.heads[2] == "at KL 1"


def test_a_metric_of_any_name_is_compared_and_what_a_row_costs_is_not():
    found = [row("base", "cost", 1.0, 0, 2), row("m", "cost", 0.5, 0, 1), row("m", "arc_easy acc", 0.5, 0, 1)]
    found += [row("m", "cost minus base", -0.5, -1, 0), row("m", "arc_easy acc minus base", -0.1, -0.2, 0)]
    found += [row("m", "cost at kl 0.5 minus x", -0.2, -1, 0), row("m", "cost flops over x", 1.2, 1.2, 1.2)]
    found = [(one.metric, one.baseline) for one in versuses(whole(found, "b"))]
    assert found == [("cost", "base"), ("arc_easy acc", "base"), ("cost at kl 0.5", "x")]


def test_no_worse_is_the_bound_within_the_margin():
    found = [row("base", "harmful", 0.1, 0, 0.2), row("m", "harmful", 0.1, 0, 0.2)]
    found.append(row("m", "harmful minus base", -0.01, -0.05, 0.028, 0.5))
    assert tables(found, margin=0.03)[1].rows[0][4] == "2.8 points (no worse)"
    assert tables(found, margin=0.02)[1].rows[0][4] == "2.8 points (not shown)"


def test_text_from_outside_stays_in_its_cell():
    page = markdown(FOUND)
    assert "| x_&lt;y>\\|z | 30.0 %" in page
    assert r"x\_$<$y$>$|z & 30.0 \% [25.0, 35.0] & -- & 2 & 100 \\" in latex(FOUND)


def test_published_numbers_have_a_column_only_where_there_are_any():
    with_known = tables(FOUND, {("base", "b", "cost"): "cost 3.25 [2] table"})[0]
    assert with_known.heads[-1] == "paper" and with_known.rows[0][-1] == "cost 3.25 [2] table"
    assert with_known.rows[1][-1] == "–"


def test_a_difference_at_matched_kl_is_in_points_too():
    found = [row("m", "harmful at kl 1 minus rlcd", 0.05, -0.01, 0.11, 0.2)]
    (one,) = versuses(whole(found, "b"))
    assert (one.metric, one.baseline) == ("harmful at kl 1", "rlcd")
    assert change(one) == "+5.0 [-1.0, +11.0] points"
