"""Values of curves at a KL: fitted on logits in its root, with their intervals, gaps and differences."""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from planted import eval_row
from planted_runs import answers, options, plant

from dlma import records
from dlma.records import EvalRow
from dlma.report import tables
from dlma.runs import cells as run_folders
from dlma.runs.cells import Arm
from dlma.statistics import pooled_seeds
from dlma.statistics.intervals import crossed_interval
from dlma.sweep import all_results, curves, readings
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
    return readings.results(curves.along_kl(rows, moving), curves.metric_of(rows, of), against, levels)


def between(first, second, w, n):
    """The share that lies w of the way from one to another on their logits, of n answers with half a one added."""
    logits = [math.log((n * y + 0.5) / (n - n * y + 0.5)) for y in (first, second)]
    odds = math.exp((1 - w) * logits[0] + w * logits[1])
    return ((n + 1) * odds / (1 + odds) - 0.5) / n


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


def test_the_value_between_two_settings_is_on_a_line_of_logits_in_the_root_of_kl_seed_by_seed(tmp_path):
    cells = []
    for seed, (kl, harmed) in {0: (1.0, 1), 1: (4.0, 0)}.items():
        rows = fixed("base", [0.0] * 4, [True] * 4) + fixed(
            "aligned", [kl] * 4, [True] * harmed + [False] * (4 - harmed)
        )
        cells.append(plant(tmp_path / f"{seed}", seed=seed, rows=rows))
    (curve,) = curves.along_kl(rows_of(*cells))
    seeds, prompts, table = readings.table_at(curve, 0.25, "harmful")
    # roots of KL: seed 0 is half-way from 0 to 1, from harm 1 to 1/4; seed 1 a quarter of the way from 0 to 2, 1 to 0
    assert seeds == [0, 1] and len(prompts) == 4
    assert table.mean(axis=0) == pytest.approx([between(1, 0.25, 0.5, 4), between(1, 0, 0.25, 4)])
    assert readings.table_at(curve, 1.5, "harmful") is None  # seed 0 does not reach it


def test_at_a_settings_own_kl_stands_its_value_and_the_error_in_kl_counts(tmp_path):
    cells = grid(tmp_path, "dlma", kls=(1.0,), harms=(0.3,), seeds=(0,), prompts=400)
    rows = rows_of(*cells)
    (curve,) = curves.along_kl(rows)
    arm = curve.points[0].arms[0]
    kl, harm = (arm.numbers[name][:, 0] for name in ("kl", "harmful"))
    _, _, table = readings.table_at(curve, float(kl.mean()), "harmful")
    assert table.mean() == pytest.approx(harm.mean())
    base = curve.start.arms[0].numbers["harmful"][:, 0]
    step = 1e-6  # of the way from the base, whose length is the root of KL
    slope = (harm.mean() - between(base.mean(), harm.mean(), 1 - step, 400)) / (step * math.sqrt(kl.mean()))
    assert table[:, 0] == pytest.approx(harm - slope * (kl - kl.mean()) / (2 * math.sqrt(kl.mean())), rel=1e-4)


def test_the_delta_method_is_the_bootstrap_over_prompts(tmp_path):
    rng = np.random.default_rng(0)
    rows = fixed("base", [0.0] * 300, rng.random(300) < 0.7)
    rows += fixed("aligned", rng.normal(1.5, 1.0, 300), rng.random(300) < 0.2)
    (curve,) = curves.along_kl(rows_of(plant(tmp_path / "a", rows=rows)))
    _, _, table = readings.table_at(curve, 1.0, "harmful")
    mine = crossed_interval(table)
    kl = np.array([row.logp - row.logp_base for row in rows[300:]])
    first, second = (np.array([float(row.harmful) for row in half]) for half in (rows[:300], rows[300:]))
    draws = []
    for _ in range(4000):
        at = rng.integers(0, 300, 300)
        w = math.sqrt(1.0 / kl[at].mean())
        draws.append(between(first[at].mean(), second[at].mean(), w, 300))
    half = 1.96 * np.std(draws)
    assert (mine.high - mine.low) / 2 == pytest.approx(half, rel=0.06)


def test_the_results_name_the_kl_and_compare_with_the_baselines_curve(tmp_path):
    cells = grid(tmp_path, "dlma") + grid(tmp_path, "rlcd", harms=(0.6, 0.5, 0.4))
    found = results(rows_of(*cells), "rlcd", (0.5, 1.0, 9.0))
    means = {(one.label, one.metric, one.at): one for one in found if one.statistic == "mean"}
    beside = ("harmful", "perplexity", "entropy", "tokens")
    assert set(means) == set(itertools.product(("dlma", "rlcd"), beside, (0.5, 1.0)))
    compared = {(one.statistic, one.metric, one.at): one for one in found if one.versus}
    assert {key[0] for key in compared} == {"difference", "ratio", "needed", "needed_seeds"}
    assert {key[1:] for key in compared} == set(itertools.product(beside, (0.5, 1.0)))
    assert {(one.label, one.versus, one.axis, one.seeds) for one in compared.values()} == {
        ("dlma", "rlcd", "kl", (0, 1, 2))
    }
    one, two, gap = means["dlma", "harmful", 1.0], means["rlcd", "harmful", 1.0], compared["difference", "harmful", 1.0]
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
    found = [readings.table_at(curve, at, "harmful")[2].mean() for at in (0.25, 1.0, 2.25)]  # half-way in the root
    assert found == pytest.approx([between(1, 0.5, 0.5, 4), 0.5, between(0.5, 0, 0.5, 4)])


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
    at = {(one.label, one.metric): one.value for one in results(rows, None, (1.0,)) if one.statistic == "mean"}
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
    (at,) = [one for one in found if (one.metric, one.statistic) == ("perplexity", "mean")]
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
    compared = [(one.label, one.versus) for one in found if (one.statistic, one.metric) == ("difference", "harmful")]
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
    seeds, _, table = readings.table_at(curve, 0.25, "harmful")
    assert seeds == [0, 1] and table.mean(axis=0) == pytest.approx([0.5, 0.5])  # logits alike to both sides of 0


def test_a_curve_that_is_straight_in_the_root_on_logits_is_met_everywhere(tmp_path):
    """Harm of 8 in 10 at KL 0, of 2 in 10 at KL 9: a third of the way the odds are the third root of 8.5 to 2.5."""
    rows = fixed("base", [0.0] * 10, [i < 8 for i in range(10)]) + fixed(
        "aligned", [9.0] * 10, [i < 2 for i in range(10)]
    )
    (curve,) = curves.along_kl(rows_of(plant(tmp_path / "a", rows=rows)))
    found = [readings.table_at(curve, level, "harmful")[2].mean() for level in (1.0, 2.25, 4.0)]
    odds = (8.5 / 2.5) ** (1 / 3)
    share = (11 * odds / (1 + odds) - 0.5) / 10
    assert found == pytest.approx([share, 0.5, 1 - share])


def test_below_a_hundredth_of_a_nat_an_error_in_kl_counts_as_it_does_there():
    """The root has no slope at 0; elsewhere it is 1 / (2 root)."""
    noise = np.array([-0.3, 0.3])
    assert curves.off(4.0 + noise) == pytest.approx(noise / 4)
    for mean in (0.0, 0.005, 0.01):
        assert curves.off(mean + noise) == pytest.approx(noise / 0.2)


def test_the_curves_are_of_the_metric_that_is_wanted(tmp_path):
    rows = rows_of(*grid(tmp_path, "dlma", seeds=(0,)))
    found = results(rows, None, (1.0,), of="helpfulness")
    own = [one.metric for one in found if one.statistic == "mean"]
    assert own == ["helpfulness", "perplexity", "entropy", "tokens"]
    heights = [one.value for one in found if one.metric == "helpfulness" and one.statistic == "missed"]
    assert len(heights) == 1 and heights[0] < 0.1


def test_of_several_curves_of_the_method_named_the_one_with_equal_choices_is_held_against(tmp_path):
    """Each choice of the baseline's is a curve; a method whose choice the baseline has not is compared with none."""
    folders = [
        plant(tmp_path / f"{method}{labels}", method=method, overrides={"labels": labels}, tag=method + labels)
        for method, labels in [("rlcd", "sign"), ("rlcd", "kept"), ("dlma", "sign"), ("dlma", "kept"), ("cd", "none")]
    ]
    found = results(rows_of(*folders), "rlcd", (0.5,))
    compared = {(one.label, one.versus) for one in found if one.statistic == "difference"}
    assert compared == {(f"dlma, labels={name}", f"rlcd, labels={name}") for name in ("sign", "kept")}


def test_what_violates_the_order_takes_the_mean_of_both(tmp_path):
    """Logits of 3/4, 1/4, 1/2, 0: the two in the middle, out of order, are one height; the way is down."""
    rows = fixed("base", [0.0] * 4, [True, True, True, False]) + points("aligned", 9.0, 0)
    folder = plant(tmp_path / "a", rows=rows)
    middle = points("step-1", 1.0, 1) + points("step-2", 4.0, 2)
    pq.write_table(records.to_table(EvalRow, middle), folder / "trajectory.parquet")
    (curve,) = curves.along_kl(rows_of(folder))
    pooled = between(0.25, 0.5, 0.5, 4)
    found = [readings.table_at(curve, at, "harmful")[2].mean() for at in (0.0, 1.0, 2.25, 4.0, 9.0)]
    assert found == pytest.approx([0.75, pooled, pooled, pooled, 0.0])
    beside = readings.table_at(curve, 1.0, "harmful", own=False)  # what is read beside it is not made to fall
    assert beside[2].mean() == pytest.approx(0.25)


def test_a_reading_says_between_which_settings_and_its_interval_holds_what_those_left_out_miss(tmp_path):
    cells = grid(tmp_path, "dlma", seeds=(0, 1), prompts=200)
    found = results(rows_of(*cells), None, (1.6,))
    (value,) = [one for one in found if (one.metric, one.statistic) == ("harmful", "mean")]
    (gap,) = [one for one in found if (one.metric, one.statistic) == ("harmful", "gap")]
    (missed,) = [one for one in found if (one.metric, one.statistic) == ("harmful", "missed")]
    (curve,) = curves.along_kl(rows_of(*cells))
    kls = [np.mean([arm.numbers["kl"][:, 0].mean() for arm in row.arms.values()]) for row in curve.points]
    assert (gap.low, gap.high, gap.n) == (pytest.approx(kls[1]), pytest.approx(kls[2]), 2)
    assert missed.n == 2 and 0 < missed.value < 0.2
    alone = crossed_interval(readings.table_at(curve, 1.6, "harmful")[2])
    assert value.value == alone.value and value.low < alone.low and value.high > alone.high
    (end,) = [
        one for one in results(rows_of(*cells[2:4]), None, (0.5,)) if one.key == dataclasses.replace(value, at=0.5).key
    ]
    one = crossed_interval(readings.table_at(curves.along_kl(rows_of(*cells[2:4]))[0], 0.5, "harmful")[2])
    assert (end.low, end.high) == (one.low, one.high)  # nothing to leave out between the base and one setting


def test_a_metric_with_items_of_its_own_is_read_at_the_kl_of_the_prompts(tmp_path):
    """Refusals of 3 safe items: 0 at the base, 1 of 3 at KL 4; the error is that of the items and that of the KL."""
    rows = fixed("base", [0.0] * 4, [True] * 4) + fixed("aligned", [3.0, 5.0, 3.0, 5.0], [False] * 4)
    scores = [
        {"item": f"s{i}", "category": None, "arm": arm, "metric": "refused_safe", "value": float(v), "weight": 1.0}
        for arm, values in (("base", (0, 0, 0)), ("aligned", (1, 0, 0)))
        for i, v in enumerate(values)
    ]
    (curve,) = curves.along_kl(rows_of(plant(tmp_path / "a", rows=rows, scores=scores)))
    _, prompts, table = readings.table_at(curve, 1.0, "refused_safe", own=False)
    assert prompts == ["s0", "s1", "s2", "p0", "p1", "p2", "p3"]
    assert curves.metrics_of(curve.points)["refused_safe"].kind == "mean"  # as these folders say; on lines of itself
    half = 1 / 6
    assert table.mean() == pytest.approx(half)
    off = table[3:, 0] - half
    assert off.sum() == pytest.approx(0) and off == pytest.approx(off[0] * np.array([1, -1, 1, -1])) and off[0] > 0


def test_differences_from_a_trained_baseline_share_their_seeds_variance(tmp_path):
    """Two methods against a third over three seeds: 4 degrees of freedom, and one seeds' part in both intervals."""
    cells = [cell for method in ("dlma", "rlcd", "rlaif") for cell in grid(tmp_path, method, kls=(1.1,), harms=(0.4,))]
    rows = rows_of(*cells)
    found = {
        one.label: one
        for one in results(rows, "rlaif", (0.8,))
        if (one.statistic, one.metric) == ("difference", "harmful")
    }
    both = {curve.method: readings.table_at(curve, 0.8, "harmful")[2] for curve in curves.along_kl(rows)}
    tables = [both[method] - both["rlaif"] for method in ("dlma", "rlcd")]
    beside = pooled_seeds.pooled(tables)
    assert beside.seed_df == 4
    for method, table in zip(("dlma", "rlcd"), tables):
        wanted = crossed_interval(table, beside)
        assert (found[method].low, found[method].high) == pytest.approx((wanted.low, wanted.high))


def drawn(rng, roots, truth, *, seeds=3, prompts=300):
    """A method's settings over seeds, in memory: harm by the truth at the KL that each seed came to, the base first."""
    names = tuple(f"p{i}" for i in range(prompts))

    def cell(seed, number, root):
        kl = max(0.0, root + (rng.normal(0, 0.03) if root else 0.0)) ** 2
        values = {"kl": rng.normal(kl, 0.5, prompts), "harmful": (rng.random(prompts) < truth(math.sqrt(kl))) * 1.0}
        numbers = {name: np.stack([column, np.ones(prompts)], axis=1) for name, column in values.items()}
        arm = "aligned" if root else "base"
        own = {arm: Arm(names, numbers, f"{arm}{seed}", f"{arm}{seed}{number}")}
        about = {"method": "m" if root else "base", "base": "lab", "seed": seed, "arms": own}
        return run_folders.Cell(Path(), f"{number}", "done", None, 0.0, 0, {}, **about)

    rows = []
    for number, root in enumerate((0.0, *roots)):
        runs = {seed: cell(seed, number, root) for seed in range(seeds)}
        told, by = ((("beta", f"{number}"),), {"recipe.beta": f"{number}"}) if root else ((), {})
        method, arm = ("m", "aligned") if root else ("base", "base")
        rows.append(sweep_settings.Setting("lab", method, told, arm, by, runs))
    base = rows[0].runs  # each run has its base's answers too, by which the two are told to belong together
    for row in rows[1:]:
        for seed, run in row.runs.items():
            row.runs[seed] = dataclasses.replace(run, arms=run.arms | base[seed].arms)
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(("slope", "bend"), [(-1.8, 0.0), (-1.8, 0.35), (-1.0, -0.5)])
def test_the_interval_of_a_reading_covers_the_truth_of_a_bent_curve(slope, bend):
    """Settings as far apart as the comparison's, read in the middle of a gap; through all that a report does."""
    truth = lambda root: 1 / (1 + math.exp(-(1.0 + slope * root + bend * root**2)))  # noqa: E731
    rng, roots, at, trials = np.random.default_rng(6), (0.37, 0.64, 0.94, 1.6, 2.1), 1.6, 100
    covered = {"whole": 0, "alone": 0}
    for _ in range(trials):
        (curve,) = curves.along_kl(drawn(rng, roots, truth))
        (e,) = [one for one in readings.results([curve], "harmful", None, [at]) if one.statistic == "mean"]
        alone = crossed_interval(readings.table_at(curve, at, "harmful")[2])
        for name, one in (("whole", e), ("alone", alone)):
            covered[name] += one.low <= truth(math.sqrt(at)) <= one.high
    print(f"\nbend {bend}: covered {covered['whole'] / trials:.3f}, {covered['alone'] / trials:.3f} without")
    assert covered["whole"] / trials >= 0.93 and covered["whole"] >= covered["alone"]


def test_settings_that_differ_in_a_choice_of_their_configs_alone_are_two_curves(tmp_path):
    """The same overrides, and a YAML file that was edited between two sweeps."""
    cells = [
        plant(
            tmp_path / f"{loss}{beta}",
            overrides={"recipe.beta": beta},
            config={"objective.loss": loss},
            kl=1 / beta,
            tag=f"{loss}{beta}",
        )
        for loss in ("ipo", "sigmoid")
        for beta in (0.5, 1.0, 2.0)
    ]
    found = curves.along_kl(rows_of(*cells))
    assert [len(curve.points) for curve in found] == [3, 3]
    assert len({curve.label for curve in found}) == 2


@pytest.mark.parametrize(("shared", "is_read"), [(3, False), (29, False), (30, True)])
def test_seeds_that_share_less_than_half_of_their_prompts_have_no_reading(tmp_path, shared, is_read):
    def renamed(rows, seed):
        name = {
            row.prompt_id: row.prompt_id if int(row.prompt_id[1:]) < shared else f"{row.prompt_id}-{seed}"
            for row in rows
        }
        return [dataclasses.replace(row, prompt_id=name[row.prompt_id]) for row in rows]

    cells = []
    for kl, seed in itertools.product((0.4, 2.2), (0, 1)):
        rows = answers("base", seed, prompts=60, harm=0.7)
        rows += answers("aligned", seed, prompts=60, harm=0.3, kl=kl, tag=f"{kl}")
        of = {"seed": seed, "overrides": {"recipe.beta": kl}, "tag": f"{kl}"}
        cells.append(plant(tmp_path / f"{kl}-{seed}", rows=renamed(rows, seed), **of))
    found = [one for one in results(rows_of(*cells), None, [1.0]) if one.at == 1.0 and one.statistic == "mean"]
    assert bool(found) == is_read and all(one.n == shared for one in found)
