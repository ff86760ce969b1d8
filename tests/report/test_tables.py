"""The tables as text: every number with its interval, nothing that breaks out of a cell."""

import math
import re

import pytest

from dlma.report.table import plain
from dlma.report.tables import change, latex, markdown, tables
from dlma.screen import visible
from dlma.sweep.results import Result, read_csv, write_csv


def row(method, metric, value, low, high, p=math.nan, base="b", **what):
    return Result(base, method, metric, 100, value, low, high, p, seeds=(0, 1), **what)


def minus(method, metric, value, low, high, p=math.nan, versus="base", **what):
    return row(method, metric, value, low, high, p, versus=versus, **{"statistic": "difference", **what})


FOUND = [
    row("base", "harmful", 0.7, 0.65, 0.75),
    row("base", "kl", 0.0, 0.0, 0.0),
    row("x_<y>|z", "harmful", 0.3, 0.25, 0.35, 0.01),
    minus("x_<y>|z", "harmful", -0.4, -0.45, -0.35, 0.01),
    minus("x_<y>|z", "harmful", 17.0, math.nan, math.nan, statistic="needed"),
    minus("x_<y>|z", "perplexity", 1.02, 0.99, 1.05, 1.0, statistic="ratio"),
    row("x", "harmful", 0.31, 0.28, 0.34, axis="kl", at=1.0),
]


def test_the_tables_say_what_the_rows_say():
    (heads, means), (_, against), (levels, matched) = map(plain, tables(FOUND))
    assert heads == ["method", "harmful ↓", "KL, nats", "seeds", "prompts"]
    assert means == [
        ["base", "70.0 % [65.0, 75.0]", "0.000 [0.000, 0.000]", "2", "100"],
        ["x_<y>|z", "30.0 % [25.0, 35.0]", "–", "2", "100"],
    ]
    assert against[0][1:] == ["harmful ↓", "-40.0 [-45.0, -35.0] points", "0.0100", "0.0 points (no worse)", "17"]
    assert against[1][1:] == ["perplexity", "×1.020 [0.990, 1.050]", "1.0000", "–", "–"]
    assert matched == [["x", "harmful ↓", "31.0 % [28.0, 34.0]"]] and levels[2] == "at KL 1"


def test_a_metric_of_any_name_is_compared_and_what_a_row_costs_is_not():
    found = [row("base", "cost", 1.0, 0, 2), row("m", "cost", 0.5, 0, 1), row("m", "arc_easy acc", 0.5, 0, 1)]
    found += [minus("m", "cost", -0.5, -1, 0), minus("m", "arc_easy acc", -0.1, -0.2, 0)]
    found += [minus("m", "cost", -0.2, -1, 0, versus="x", axis="kl", at=0.5)]
    found += [row("m", "flops", 1.2, 1.2, 1.2, statistic="cost", versus="x")]
    against = next(table for table in tables(found) if "against" in table.title)
    assert [line[:2] for line in against.rows] == [
        ["m (base)", "cost"], ["m (base)", "arc easy acc"], ["m (x)", "cost at KL 0.5"],
    ]  # fmt: skip


def test_no_worse_is_the_bound_within_the_margin():
    found = [row("base", "harmful", 0.1, 0, 0.2), row("m", "harmful", 0.1, 0, 0.2)]
    found.append(minus("m", "harmful", -0.01, -0.05, 0.028, 0.5))
    assert tables(found, margin=0.03)[1].rows[0][4] == "2.8 points (no worse)"
    assert tables(found, margin=0.02)[1].rows[0][4] == "2.8 points (not shown)"


def test_text_from_outside_stays_in_its_cell():
    page = markdown(FOUND)
    assert "| x_&lt;y>\\|z | 30.0 %" in page
    assert r"x\_$<$y$>$|z & 30.0 \% [25.0, 35.0] & -- & 2 & 100 \\" in latex(FOUND)


HOSTILE = [
    "[2cm]x", "*x", r"\\input{/etc/passwd}", r"\end{tabular}", "a & b", "50 % off", "$x$ #1 {y} ~ ^^5c",
    "a\nb\r% c\x1b[2J", "x---y", "</script>", "| a | b |", "**x** `y`",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text_in_latex(name):
    """No command but the renderer's own, as many rows and cells as for a plain name, nothing outside of a line."""
    plain, hostile = (
        latex([row(method, "harmful", 0.3, 0.2, 0.4, base=method), row("m", "kl", 1, 0, 2, base=method)])
        for method in ("plain", name)
    )
    commands = re.compile(r"\\[a-z]+")
    own = {r"\textbackslash", r"\textasciitilde", r"\textasciicircum"}
    assert [c for c in commands.findall(hostile) if c not in own] == commands.findall(plain)
    assert len(hostile.splitlines()) == len(plain.splitlines()) and hostile.isprintable() is plain.isprintable()
    for ours, theirs in zip(hostile.splitlines(), plain.splitlines(), strict=True):
        assert ours.startswith("%") == theirs.startswith("%") and not ours.startswith(("[", "*"))
        unescaped = re.sub(r"\\[&%$#_{}]", "", ours)
        if not ours.startswith("%"):
            assert unescaped.count("&") == re.sub(r"\\%", "", theirs).count("&") and "%" not in unescaped
        assert "--" not in ours.replace("{}", "x") or "--" in theirs


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_read_back_from_the_results(name, tmp_path):
    found = [row(f"={name}", "harmful", 0.3, 0.2, 0.4), row(name, "harmful", -0.3, -0.4, -0.2)]
    (tmp_path / "results.csv").write_bytes(write_csv(found))
    again = read_csv(tmp_path / "results.csv")
    assert [one.method for one in again] == [visible(f"={name}"), visible(name)]
    assert [one.value for one in again] == [0.3, -0.3]
    assert markdown(again) == markdown(found) and latex(again) == latex(found)
    assert b"\n=" not in (tmp_path / "results.csv").read_bytes()


def test_published_numbers_have_a_column_only_where_there_are_any():
    with_known = tables(FOUND, {("base", "b", "cost"): "cost 3.25 [2] table"})[0]
    assert with_known.heads[-1] == "paper" and with_known.rows[0][-1] == "cost 3.25 [2] table"
    assert with_known.rows[1][-1] is None


def test_a_difference_at_matched_kl_is_in_points_too():
    assert change(minus("m", "harmful", 0.05, -0.01, 0.11, 0.2, versus="rlcd", axis="kl", at=1.0)) == (
        "+5.0 [-1.0, +11.0] points"
    )
