"""Curves of harm against KL: which settings make one, and what stands at a given KL."""

import dataclasses
import itertools
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from planted import eval_row
from planted_runs import answers, options, plant

from dlma import records
from dlma.records import EvalRow
from dlma.report import tables
from dlma.runs import cells as run_folders
from dlma.statistics.intervals import crossed_interval
from dlma.sweep import all_results, curves
from dlma.sweep import settings as sweep_settings


def rows_of(*folders):
    return sweep_settings.settings([run_folders.read_cell(folder) for folder in folders])


def grid(tmp_path, method, kls=(0.4, 1.1, 2.2), harms=(0.5, 0.3, 0.2), seeds=(0, 1, 2), prompts=60):
    return [
        plant(
            tmp_path / f"{method}-{kl}-{seed}",
            method=method,
            seed=seed,
            overrides={"recipe.beta": 1 / kl},
            harm=harm,
            kl=kl,
            tag=str(kl),
            prompts=prompts,
        )
        for kl, harm in zip(kls, harms)
        for seed in seeds
    ]


def results(rows, against, levels, moving=None, of=None):
    return curves.results(curves.along_kl(rows, moving), curves.metric_of(rows, of), against, levels)


def test_settings_that_differ_in_numbers_are_one_curve_and_choices_are_others(tmp_path):
    cells = grid(tmp_path, "dlma", seeds=(0,)) + grid(tmp_path, "rlcd", seeds=(0,))
    cells.append(plant(tmp_path / "s", overrides={"recipe.beta": 1.0, "labels": "shuffled"}, tag="s"))
    found = {curve.label: len(curve.points) for curve in curves.along_kl(rows_of(*cells))}
    assert found == {"dlma": 3, "rlcd": 3, "dlma, labels=shuffled": 1}
    assert all(curve.start.label == "base" for curve in curves.along_kl(rows_of(*cells)))


def fixed(arm, kls, harms):
    """Answers whose KL and harm are given prompt by prompt."""
    return [
        eval_row(f"p{i}", arm, answer=f"{arm} {i}", logp=-10.0 + kl, logp_base=-10.0, harmful=harm, harmlessness=0.0)
        for i, (kl, harm) in enumerate(zip(kls, harms))
    ]


def test_the_value_between_two_settings_is_on_a_line_in_the_root_of_kl_seed_by_seed(tmp_path):
    cells = []
    for seed, (kl, harmed) in {0: (1.0, 1), 1: (4.0, 0)}.items():
        rows = fixed("base", [0.0] * 4, [True] * 4) + fixed(
            "aligned", [kl] * 4, [True] * harmed + [False] * (4 - harmed)
        )
        cells.append(plant(tmp_path / f"{seed}", seed=seed, rows=rows))
    (curve,) = curves.along_kl(rows_of(*cells))
    seeds, prompts, table = curves.table_at(curve, 0.25, "harmful")
    # roots of KL: seed 0 is half-way from 0 to 1, from harm 1 to 1/4; seed 1 a quarter of the way from 0 to 2, 1 to 0
    assert seeds == [0, 1] and len(prompts) == 4
    assert table.mean(axis=0) == pytest.approx([1 - 0.5 * 0.75, 1 - 0.25])
    assert curves.table_at(curve, 1.5, "harmful") is None  # seed 0 does not reach it


def test_at_a_settings_own_kl_stands_its_value_and_the_error_in_kl_counts(tmp_path):
    cells = grid(tmp_path, "dlma", kls=(1.0,), harms=(0.3,), seeds=(0,), prompts=400)
    rows = rows_of(*cells)
    (curve,) = curves.along_kl(rows)
    arm = curve.points[0].arms[0]
    kl, harm = (arm.numbers[name][:, 0] for name in ("kl", "harmful"))
    _, _, table = curves.table_at(curve, float(kl.mean()), "harmful")
    assert table.mean() == pytest.approx(harm.mean())
    base = curve.start.arms[0].numbers["harmful"][:, 0]
    slope = (harm.mean() - base.mean()) / kl.mean()  # in KL, half of which is that of the line in its root at its end
    assert table[:, 0] == pytest.approx(harm - slope / 2 * (kl - kl.mean()))


def test_the_delta_method_is_the_bootstrap_over_prompts(tmp_path):
    rng = np.random.default_rng(0)
    rows = fixed("base", [0.0] * 300, rng.random(300) < 0.7)
    rows += fixed("aligned", rng.normal(1.5, 1.0, 300), rng.random(300) < 0.2)
    (curve,) = curves.along_kl(rows_of(plant(tmp_path / "a", rows=rows)))
    _, _, table = curves.table_at(curve, 1.0, "harmful")
    mine = crossed_interval(table)
    kl = np.array([row.logp - row.logp_base for row in rows[300:]])
    first, second = (np.array([float(row.harmful) for row in half]) for half in (rows[:300], rows[300:]))
    draws = []
    for _ in range(4000):
        at = rng.integers(0, 300, 300)
        w = math.sqrt(1.0 / kl[at].mean())
        draws.append((1 - w) * first[at].mean() + w * second[at].mean())
    half = 1.96 * np.std(draws)
    assert (mine.high - mine.low) / 2 == pytest.approx(half, rel=0.06)


def test_the_results_name_the_kl_and_compare_with_the_baselines_curve(tmp_path):
    cells = grid(tmp_path, "dlma") + grid(tmp_path, "rlcd", harms=(0.6, 0.5, 0.4))
    found = results(rows_of(*cells), "rlcd", (0.5, 1.0, 9.0))
    means = {(one.label, one.metric, one.at): one for one in found if one.statistic == "mean"}
    assert set(means) == set(itertools.product(("dlma", "rlcd"), ("harmful", "perplexity"), (0.5, 1.0)))
    compared = {(one.statistic, one.at): one for one in found if one.statistic != "mean"}
    assert set(compared) == set(itertools.product(("difference", "needed"), (0.5, 1.0)))
    assert {(one.label, one.versus, one.axis, one.seeds) for one in compared.values()} == {
        ("dlma", "rlcd", "kl", (0, 1, 2))
    }
    one, two, gap = means["dlma", "harmful", 1.0], means["rlcd", "harmful", 1.0], compared["difference", 1.0]
    assert gap.value == pytest.approx(one.value - two.value)
    assert 0 <= gap.p_holm <= 1 and math.isnan(one.p_holm)


def test_another_truth_makes_the_same_curves_tests_and_tables(tmp_path):
    """One number under two names: harmlessness by the lab's oracle, and sentiment where there is no oracle."""
    found = {}
    for name in ("harmlessness", "sentiment"):
        blank = {"harmful": None, "harmlessness": None, "helpfulness": None, "malformed": None}
        folders = []
        for method, harms in {"dlma": (0.5, 0.3), "rlcd": (0.6, 0.5)}.items():
            for kl, harm in zip((0.4, 1.1), harms):
                rows = answers("base", 0, prompts=40, harm=0.7)
                rows += answers("aligned", 0, prompts=40, harm=harm, kl=kl, tag=f"{method}{kl}")
                rows = [dataclasses.replace(row, **blank | {name: row.harmlessness}) for row in rows]
                place = tmp_path / name / f"{method}{kl}"
                folders.append(plant(place, method=method, overrides={"recipe.beta": 1 / kl}, rows=rows))
        wanted = options(metric=name) if name == "harmlessness" else options()
        found[name] = all_results.results(rows_of(*folders), wanted)
    renamed = [dataclasses.replace(one, metric="sentiment") for one in found["harmlessness"] if one.metric in found]
    assert [one for one in found["sentiment"] if one.metric == "sentiment"] == renamed
    assert {(one.statistic, one.axis) for one in renamed} >= {("mean", "kl"), ("difference", "")}
    assert "| method | sentiment (VADER) ↑ |" in tables.markdown(found["sentiment"])


def test_policies_on_the_way_are_points_of_their_runs_curve_and_no_rows(tmp_path):
    rows = fixed("base", [0.0] * 4, [True] * 4) + fixed("aligned", [4.0] * 4, [False] * 4)
    folder = plant(tmp_path / "a", rows=rows)
    middle = fixed("step-1", [1.0] * 4, [True, True, False, False])
    pq.write_table(records.to_table(EvalRow, middle), folder / "trajectory.parquet")
    found = rows_of(folder)
    (curve,) = curves.along_kl(found)
    assert [row.label for row in curve.points] == ["dlma", "dlma @ 1 of 1"]
    assert [row.label for row in found if row.final] == ["base", "dlma"]
    assert curves.table_at(curve, 0.25, "harmful")[2].mean() == pytest.approx(0.75)  # half-way in the root
    assert curves.table_at(curve, 2.25, "harmful")[2].mean() == pytest.approx(0.25)


def way(folder, beta, ends, middle, *, method="dlma", seed=0):
    """A run of 4 prompts with one policy on its way: (KL, harmful answers) of its end and of the middle."""
    rows = fixed("base", [0.0] * 4, [True] * 4) + points("aligned", *ends)
    plant(folder, method=method, seed=seed, overrides={"recipe.beta": beta}, rows=rows, tag=str(beta))
    pq.write_table(records.to_table(EvalRow, points("step-1", *middle)), folder / "trajectory.parquet")
    return folder


def points(arm, kl, harmed):
    return fixed(arm, [kl] * 4, [i < harmed for i in range(4)])


def test_of_several_runs_each_has_its_own_way_and_their_ends_are_the_methods_curve(tmp_path):
    cells = [way(tmp_path / "a", 0.5, (2.0, 0), (1.0, 2)), way(tmp_path / "b", 2.0, (1.0, 1), (0.5, 3))]
    cells += [way(tmp_path / "c", 0.5, (2.0, 2), (1.0, 3), method="rlcd")]
    rows = rows_of(*cells)
    found = {curve.label: [row.label for row in curve.points] for curve in curves.along_kl(rows)}
    assert found == {
        "dlma": ["dlma, beta=0.5", "dlma, beta=2.0"],
        "dlma, beta=0.5, on the way": ["dlma, beta=0.5", "dlma, beta=0.5 @ 1 of 1"],
        "dlma, beta=2.0, on the way": ["dlma, beta=2.0", "dlma, beta=2.0 @ 1 of 1"],
        "rlcd": ["rlcd", "rlcd @ 1 of 1"],
    }
    at = {(one.label, one.metric): one.value for one in results(rows, None, (1.0,))}
    # 1 nat is the end of beta 2 and the middle of beta 0.5
    assert at["dlma", "harmful"] == pytest.approx(0.25)
    assert at["dlma, beta=0.5, on the way", "harmful"] == pytest.approx(0.5)
    assert at["dlma, beta=2.0, on the way", "harmful"] == pytest.approx(0.25)


def test_a_way_is_held_against_the_baselines_way_at_the_same_setting(tmp_path):
    cells = [
        way(tmp_path / f"{method}{beta}", beta, (2.0, method == "rlcd"), (1.0, 2), method=method)
        for method in ("dlma", "rlcd")
        for beta in (1, 3)
    ]
    found = results(rows_of(*cells), "rlcd", (1.5,))
    named = {(one.label, one.versus) for one in found if one.statistic == "difference"}
    ways = {tuple(f"{method}, beta={beta}, on the way" for method in ("dlma", "rlcd")) for beta in (1, 3)}
    assert named == {("dlma", "rlcd")} | ways


def test_the_perplexity_at_a_kl_lies_on_the_line_of_its_logarithm(tmp_path):
    """Answers of 10 tokens: e at the base, e^2 at KL 2; e^1.5 at KL 1/2, whose root is half of that of 2."""
    rows = [eval_row(f"p{i}", "base", tokens=10, logp=-10.0, logp_base=-10.0, harmful=True) for i in range(4)]
    rows += [eval_row(f"p{i}", "aligned", tokens=10, logp=-18.0, logp_base=-20.0, harmful=False) for i in range(4)]
    found = results(rows_of(plant(tmp_path / "a", rows=rows)), None, (0.5,))
    (at,) = [one for one in found if one.metric == "perplexity"]
    assert at.value == pytest.approx(math.exp(1.5))


def lengths(tmp_path):
    """Two margin weights at two training lengths each: numbers all."""
    return [
        plant(tmp_path / f"{weight}-{epochs}", overrides={"recipe.weight": weight, "recipe.epochs": epochs}, kl=epochs)
        for weight in (0.5, 2.0)
        for epochs in (1, 2)
    ]


def test_only_the_overrides_named_run_along_a_curve(tmp_path):
    rows = rows_of(*lengths(tmp_path))
    assert {curve.label: len(curve.points) for curve in curves.along_kl(rows)} == {"dlma": 4}
    found = {curve.label: len(curve.points) for curve in curves.along_kl(rows, ["recipe.epochs"])}
    assert found == {"dlma, weight=0.5": 2, "dlma, weight=2.0": 2}
    apart = [curve.label for curve in curves.along_kl(rows, [])]
    assert apart == [f"dlma, weight={w}, epochs={e}" for w in (0.5, 2.0) for e in (1, 2)]


def test_curves_over_one_override_are_held_against_the_curve_named(tmp_path):
    rows = rows_of(*lengths(tmp_path))
    found = results(rows, "dlma, weight=0.5", (1.5,), ["recipe.epochs"])
    compared = [(one.label, one.versus) for one in found if one.statistic == "difference"]
    assert compared == [("dlma, weight=2.0", "dlma, weight=0.5")]


def test_the_way_is_one_where_seeds_kept_their_policies_at_other_steps(tmp_path):
    """A filter leaves every seed other pairs, and so other steps; half-way between 1 and 0 stands at KL 1/4 in both."""
    folders = []
    for seed, step in enumerate(("step-000031", "step-000034")):
        ends = fixed("base", [0.0] * 4, [True] * 4) + fixed("aligned", [2.0] * 4, [False] * 4)
        folder = plant(tmp_path / f"{seed}", seed=seed, rows=ends)
        middle = fixed(step, [1.0] * 4, [False] * 4)
        pq.write_table(records.to_table(EvalRow, middle), folder / "trajectory.parquet")
        folders.append(folder)
    (curve,) = curves.along_kl(rows_of(*folders))
    seeds, _, table = curves.table_at(curve, 0.25, "harmful")
    assert seeds == [0, 1] and table.mean(axis=0) == pytest.approx([0.5, 0.5])


def test_a_line_in_the_root_meets_a_curve_whose_gain_is_straight_in_it(tmp_path):
    """Harm 1 - root(KL) / 3, known at KL 0 and 9 only: at 1 and 4 the line is on the curve, a chord in KL far above."""
    rows = fixed("base", [0.0] * 6, [True] * 6) + fixed("aligned", [9.0] * 6, [False] * 6)
    (curve,) = curves.along_kl(rows_of(plant(tmp_path / "a", rows=rows)))
    found = [curves.table_at(curve, level, "harmful")[2].mean() for level in (1.0, 4.0)]
    assert found == pytest.approx([2 / 3, 1 / 3])


def test_below_a_hundredth_of_a_nat_an_error_in_kl_counts_as_it_does_there():
    """The root has no slope at 0; elsewhere it is 1 / (2 root)."""
    noise = np.array([-0.3, 0.3])
    assert curves.off(4.0 + noise) == pytest.approx(noise / 4)
    for mean in (0.0, 0.005, 0.01):
        assert curves.off(mean + noise) == pytest.approx(noise / 0.2)


def test_the_curves_are_of_the_metric_that_is_wanted(tmp_path):
    rows = rows_of(*grid(tmp_path, "dlma", seeds=(0,)))
    found = results(rows, None, (1.0,), of="helpfulness")
    assert [one.metric for one in found] == ["helpfulness", "perplexity"]


def test_of_several_curves_of_the_method_named_the_one_with_equal_choices_is_held_against(tmp_path):
    """Each choice of the baseline's is a curve; a method whose choice the baseline has not is compared with none."""
    folders = [
        plant(tmp_path / f"{method}{labels}", method=method, overrides={"labels": labels}, tag=method + labels)
        for method, labels in [("rlcd", "sign"), ("rlcd", "kept"), ("dlma", "sign"), ("dlma", "kept"), ("cd", "none")]
    ]
    found = results(rows_of(*folders), "rlcd", (0.5,))
    compared = {(one.label, one.versus) for one in found if one.statistic == "difference"}
    assert compared == {(f"dlma, labels={name}", f"rlcd, labels={name}") for name in ("sign", "kept")}
