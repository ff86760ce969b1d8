"""The tables as text: every number with its interval, nothing that breaks out of a cell."""

import math
import re
from dataclasses import replace

import pytest

from dlma.report.result_text import change
from dlma.report.table import plain
from dlma.report.tables import latex, markdown, tables
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
    (heads, means), (needs, against), (levels, matched) = map(plain, tables(FOUND))
    assert heads == ["method", "harmful ↓", "KL, nats", "seeds", "prompts"]
    assert means == [
        ["base", "70.0 % [65.0, 75.0]", "0.000 [0.000, 0.000]", "2", "100"],
        ["x_<y>|z", "30.0 % [25.0, 35.0]", "–", "2", "100"],
    ]
    assert against[0][1:] == ["harmful ↓", "-40.0 [-45.0, -35.0] points", "0.0100", "0.0 points (no worse)", "17"]
    assert against[1][1:] == ["perplexity", "×1.020 [0.990, 1.050]", "1.0000", "–", "–"]
    assert needs[-1] == "prompts to see this difference"  # of one seed nothing is known of seeds
    assert matched == [["x", "harmful ↓", "31.0 % [28.0, 34.0]", "–"]] and levels[2] == "at KL 1"


def test_a_metric_of_any_name_is_compared_and_what_a_row_costs_is_not():
    found = [row("base", "cost", 1.0, 0, 2), row("m", "cost", 0.5, 0, 1), row("m", "arc_easy acc", 0.5, 0, 1)]
    found += [minus("m", "cost", -0.5, -1, 0), minus("m", "arc_easy acc", -0.1, -0.2, 0)]
    found += [minus("m", "cost", -0.2, -1, 0, versus="x", axis="kl", at=0.5)]
    found += [row("m", "flops", 1.2, 1.2, 1.2, statistic="cost", versus="x")]
    against = [[line[:2] for line in table.rows] for table in tables(found) if "against" in table.title]
    assert against == [[["m", "cost"], ["m", "arc easy acc"]], [["m", "cost at KL 0.5"]]]


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


def read_at(value, low, high, *gaps):
    """A difference of two curves at 1 nat, and over which settings both were read: (low, high, settings left out)."""
    found = [minus("m", "harmful", value, low, high, 0.5, versus="x", axis="kl", at=1.0)]
    for label, gap in zip(("m", "x"), gaps):
        low, high, n = gap
        told = {"statistic": "gap", "axis": "kl", "at": 1.0}
        found.append(Result("b", label, "harmful", n, high - low, low, high, seeds=(0, 1), **told))
    return found


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.02, 0.029, "yes"), (-0.02, 0.031, "not shown"), (0.031, 0.05, "no"), (-0.05, -0.03, "no")],
)
def test_a_difference_at_matched_kl_is_shown_to_be_none_or_some_with_the_gaps_of_both(low, high, said):
    found = read_at((low + high) / 2, low, high, (0.41, 0.88, 5), (0.7, 2.0, 5))
    (apart,) = [table for table in tables(found) if "at the same KL" in table.title]
    heads, ((*_, within, mine, theirs),) = plain(apart)
    assert (within, mine, theirs) == (said, "0.41–0.88", "0.70–2.00")
    assert heads[4:] == ["within 3 points", "read over, nats", "x over"]


def test_where_it_is_not_known_what_a_line_misses_nothing_is_shown():
    for gaps in ([], [(0.4, 0.8, 5)], [(0.4, 0.8, 0), (0.7, 2.0, 0)]):
        found = read_at(0.0, -0.01, 0.01, *gaps)
        (apart,) = [table for table in tables(found) if "at the same KL" in table.title]
        assert plain(apart)[1][0][4] == "not shown"
        assert ("nothing is shown to be within the margin" in markdown(found)) == (len(gaps) == 2)
    assert "nothing is shown" not in markdown(read_at(0.0, -0.01, 0.01, (0.4, 0.8, 5), (0.7, 2.0, 5)))


def test_seeds_needed_stand_beside_the_prompts_where_they_are_known():
    found = [row("base", "harmful", 0.7, 0.6, 0.8), minus("m", "harmful", -0.1, -0.2, 0.0, 0.05)]
    for name, value in (("needed", math.inf), ("needed_seeds", 7.0)):
        found.append(minus("m", "harmful", value, math.nan, math.nan, statistic=name))
    heads, ((*_, prompts, seeds),) = plain(tables(found)[1])
    assert heads[-2:] == ["prompts to see this difference", "seeds to see it"]
    assert (prompts, seeds) == ("more seeds, not prompts", "7")
    found[-1] = replace(found[-1], value=math.inf)
    assert plain(tables(found)[1])[1][0][-2:] == ["neither alone"] * 2


def test_a_value_read_off_a_curve_stands_with_its_gap_and_what_settings_left_out_are_missed_by():
    found = [row("x", "harmful", 0.31, 0.28, 0.34, axis="kl", at=1.0)]
    found.append(row("x", "harmful", 0.47, 0.41, 0.88, axis="kl", at=1.0, statistic="gap"))
    found.append(row("x", "harmful", 0.004, math.nan, math.nan, axis="kl", statistic="missed"))
    (matched,) = [plain(table)[1] for table in tables(found) if "read at" in table.title]
    assert matched == [["x", "harmful ↓", "31.0 % [28.0, 34.0] over 0.41–0.88", "0.4 points"]]
