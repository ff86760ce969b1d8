"""Harm at equal operations: which settings make a curve, and what stands at a budget."""

import math

import numpy as np
import pytest
from planted import eval_row
from planted_runs import costing, plant, rows_of

from dlma.report import tables as sweep_tables
from dlma.statistics.intervals import Beside, crossed_interval
from dlma.sweep import curves, readings


def answered(harmed, of=8, kl=1.0):
    """The base harms always; the policy on so many of the prompts."""
    base = [eval_row(f"p{i}", "base", answer=f"b{i}", logp=-10.0, harmful=True, harmlessness=0.0) for i in range(of)]
    own = [
        eval_row(f"p{i}", "aligned", answer=f"{harmed} {i}", logp=-10.0 + kl, harmful=i < harmed, harmlessness=0.0)
        for i in range(of)
    ]
    return base + own


def budget(folder, method, seed, pairs, flops, harmed, **overrides):
    options = dict(method=method, seed=seed, rows=answered(harmed), overrides={"labels.max_pairs": pairs, **overrides})
    return costing(folder / f"{method}-{seed}-{pairs}-{'-'.join(map(str, overrides.values()))}", flops, **options)


@pytest.fixture
def rows(tmp_path):
    """Two methods, three budgets of pairs, two seeds: (flops, prompts with harm) of each."""
    spent = {
        "dlma": {250: [(1e12, 8), (2e12, 8)], 500: [(4e12, 4), (4e12, 6)], 1000: [(16e12, 2), (16e12, 0)]},
        "rlcd": {250: [(1e12, 8), (1e12, 8)], 500: [(2e12, 6), (2e12, 8)], 1000: [(8e12, 4), (8e12, 4)]},
    }
    return rows_of(
        *(
            budget(tmp_path, method, seed, pairs, *each[seed])
            for method, found in spent.items()
            for pairs, each in found.items()
            for seed in (0, 1)
        )
    )


def results(rows, against=None, budgets=None):
    return readings.results(curves.along_flops(rows), curves.metric_of(rows), against, budgets)


def curve(rows, name):
    (found,) = [one for one in curves.along_flops(rows) if one.label == name]
    return found


def test_the_value_between_two_settings_is_the_line_on_the_logarithmic_scale_seed_by_seed(rows):
    seeds, prompts, table = readings.table_at(curve(rows, "dlma"), 2e12, "harmful")
    # seed 0: half way (in logarithms) from 1e12 to 4e12, from 8/8 to 4/8; seed 1: at its first setting
    assert seeds == [0, 1] and len(prompts) == 8
    assert table.mean(axis=0) == pytest.approx([0.75, 1.0])
    _, _, table = readings.table_at(curve(rows, "dlma"), 8e12, "harmful")
    assert table.mean(axis=0) == pytest.approx([(4 + 2) / 16, (6 + 0) / 16])


def test_outside_its_settings_a_method_has_no_value(rows):
    assert readings.table_at(curve(rows, "dlma"), 1.5e12, "harmful") is None  # seed 1 begins at 2e12
    assert readings.table_at(curve(rows, "rlcd"), 9e12, "harmful") is None
    found = results(rows, None, [9e12])
    assert {one.label for one in found if one.at} == {"dlma"}


def test_the_difference_from_the_baselines_curve_is_paired_by_prompt_and_seed(rows):
    found = {(one.label, one.statistic): one for one in results(rows, "rlcd", [4e12]) if one.at}
    assert {(one.metric, one.axis, one.at) for one in found.values()} == {("harmful", "flops", 4e12)}
    # rlcd at 4e12 is half way from 2e12 to 8e12: prompts 0-3 harm in full, 4 and 5 (seed 1: 4 to 7) by half
    ours = np.array([[1, 1], [1, 1], [1, 1], [1, 1], [0, 1], [0, 1], [0, 0], [0, 0]])
    theirs = np.array([[1, 1], [1, 1], [1, 1], [1, 1], [0.5, 0.5], [0.5, 0.5], [0, 0.5], [0, 0.5]])
    # of each method the middle one of three settings is left out: what the line without it misses, over its room
    x = np.log(np.array([[1.5, 4.0, 16.0], [1.0, 2.0, 8.0]]))
    y = np.array([[8 + 8, 4 + 6, 2 + 0], [8 + 8, 6 + 8, 4 + 4]]) / 16
    errors = [np.interp(xs[1], xs[::2], ys[::2]) - ys[1] for xs, ys in zip(x, y)]
    rooms = (x[:, 1] - x[:, 0]) * (x[:, 2] - x[:, 1])
    bend = math.sqrt(np.square(errors).sum() / np.square(rooms).sum())
    room = math.log(4 / 2) * math.log(8 / 4)  # of rlcd; dlma stands at a setting of its own
    df = np.square(rooms).sum() ** 2 / (rooms**4).sum()  # an error counts by its room
    wanted = crossed_interval(ours - theirs, Beside(sd=bend * room, df=df))
    gap = found["dlma", "difference"]
    assert gap.versus == "rlcd"
    assert (gap.value, gap.low, gap.high) == pytest.approx((wanted.value, wanted.low, wanted.high))
    assert gap.value == pytest.approx((4 / 8 + 6 / 8) / 2 - (5 / 8 + 6 / 8) / 2)
    assert 0 <= gap.p_holm <= 1 and math.isnan(found["rlcd", "mean"].p_holm)
    assert found["rlcd", "gap"].low == pytest.approx(2e12) and found["rlcd", "gap"].high == pytest.approx(8e12)
    kinds = {("dlma", name) for name in ("mean", "gap", "difference", "needed", "needed_seeds")}
    assert set(found) == kinds | {("rlcd", "mean"), ("rlcd", "gap")}


def test_numbers_that_move_no_cost_make_curves_of_their_own_each_against_its_like(tmp_path):
    folders = [
        budget(tmp_path, method, 0, pairs, flops * (1.01 if beta == 0.3 else 1.0), harmed, **{"recipe.beta": beta})
        for method in ("dlma", "rlcd")
        for beta in (0.3, 0.6)
        for pairs, flops, harmed in ((250, 1e12, 8), (500, 4e12, 4 if beta == 0.3 else 6))
    ]
    rows = rows_of(*folders)
    assert {one.label for one in curves.along_flops(rows)} == {
        *("dlma, beta=0.3", "dlma, beta=0.6", "rlcd, beta=0.3", "rlcd, beta=0.6")
    }
    own = [one for one in results(rows, "rlcd", [2e12]) if one.label == "dlma, beta=0.6"]
    assert [one.versus for one in own if one.statistic == "difference"] == ["rlcd, beta=0.6"]


def test_settings_of_one_cost_make_no_curve(tmp_path):
    folders = [
        costing(tmp_path / f"{beta}", 2e12, overrides={"recipe.beta": beta}, tag=str(beta), harm=0.3)
        for beta in (0.3, 0.6)
    ]
    assert curves.along_flops(rows_of(*folders)) == [] == results(rows_of(*folders), None, None)
    assert results(rows_of(plant(tmp_path / "old")), None, None) == []


def test_the_budgets_that_are_chosen_lie_where_every_curve_has_a_value(rows):
    budgets = curves.budgets_of(curves.along_flops(rows))
    assert budgets == sorted(budgets) and budgets[0] > 2e12 and budgets[-1] < 8e12  # rlcd ends at 8e12
    assert np.diff(np.log(budgets)) == pytest.approx([math.log(8 / 2) / 4] * 2)
    assert sorted(one.at for one in results(rows) if (one.label, one.statistic) == ("rlcd", "mean")) == budgets


def test_the_table_shows_budgets_and_what_is_not_reached(rows):
    found = results(rows, "rlcd", [4e12, 9e12])
    tables = {table.title: table for table in sweep_tables.tables(found)}
    table = tables["lab-standard: read at equal FLOPs of sampling, labelling and training"]
    assert table.heads == ["method", "metric", "at 4 TFLOP", "at 9 TFLOP", "a setting left out is missed by"]
    assert {row[0]: row[-2].text for row in table.rows}["rlcd"] == "not reached"
    assert {row[0]: row[-2].below for row in table.rows}["dlma"] == ("over 4.00–16.00",)
    (versus,) = [table for title, table in tables.items() if "against" in title]
    assert [row[:2] for row in versus.rows] == [["dlma", "harmful at FLOPs 4e+12 ↓"]]
