"""Bases as a factor at the same KL: readings base by base, their means over seeds the columns of one table."""

import dataclasses
import math

import numpy as np
import pytest
from planted import eval_row
from planted_runs import options, plant

from dlma.report import tables
from dlma.runs import cells as run_folders
from dlma.statistics.intervals import Beside, crossed_interval
from dlma.sweep import all_results, curves, pooled_curves, readings
from dlma.sweep import settings as sweep_settings

BASES = ("lab-a", "lab-b")


def fixed(arm, kls, harms):
    """Answers whose KL and harm are given prompt by prompt."""
    return [
        eval_row(f"p{i}", arm, answer=f"{arm} {i}", logp=-10.0 + kl, logp_base=-10.0, harmful=harm, harmlessness=0.0)
        for i, (kl, harm) in enumerate(zip(kls, harms))
    ]


def run(folder, base, method, kl, harmed, *, seed=0, rate=1.0):
    """Eight prompts, all harmful at the base; `harmed` of them at a KL of `kl`."""
    rows = fixed("base", [0.0] * 8, [True] * 8) + fixed("aligned", [kl] * 8, [i < harmed for i in range(8)])
    name = f"{base}-{method}-{seed}-{rate}"
    return plant(folder / name, base=base, method=method, seed=seed, rows=rows, overrides={"recipe.lr": rate})


def drawn(*folders):
    return curves.along_kl(sweep_settings.settings([run_folders.read_cell(folder) for folder in folders]))


def between(first, second, w, n=8):
    """The share that lies w of the way from one to another on their logits, of n answers with half a one added."""
    logits = [math.log((n * y + 0.5) / (n - n * y + 0.5)) for y in (first, second)]
    odds = math.exp((1 - w) * logits[0] + w * logits[1])
    return ((n + 1) * odds / (1 + odds) - 0.5) / n


def found(curves_, at=1.0):
    told = pooled_curves.results(curves_, "harmful", "dlma", [at])
    return {(one.method, one.statistic): one for one in told}


def test_the_value_is_the_mean_of_what_is_read_on_each_base(tmp_path):
    # at 1 nat, whose root is half-way to that of 4 nats and all the way to that of 1 nat
    cells = [run(tmp_path, "lab-a", "dlma", 4.0, 2), run(tmp_path, "lab-b", "dlma", 1.0, 4)]
    cells += [run(tmp_path, "lab-a", "rlcd", 4.0, 4), run(tmp_path, "lab-b", "rlcd", 4.0, 0)]
    mine = found(drawn(*cells))
    dlma = (between(1, 2 / 8, 0.5), 4 / 8)
    rlcd = (between(1, 4 / 8, 0.5), between(1, 0, 0.5))
    assert mine["dlma", "mean"].value == pytest.approx(sum(dlma) / 2)
    assert mine["rlcd", "difference"].value == pytest.approx((sum(rlcd) - sum(dlma)) / 2)
    assert {one.base for one in mine.values()} == {"lab-a + lab-b"} and mine["rlcd", "difference"].versus == "dlma"
    assert (mine["dlma", "gap"].low, mine["dlma", "gap"].high) == (0.0, 4.0)
    assert ("dlma", "difference") not in mine and ("rlcd", "needed_seeds") not in mine


def test_the_columns_are_the_bases_and_their_values_means_over_the_seeds(tmp_path):
    harmed = {("lab-a", 0): 2, ("lab-a", 1): 6, ("lab-b", 0): 3, ("lab-b", 1): 5}
    cells = [run(tmp_path, base, "dlma", 1.0, of, seed=seed) for (base, seed), of in harmed.items()]
    (one,) = [row for row in found(drawn(*cells)).values() if row.statistic == "mean"]
    assert one.value == pytest.approx(0.5) and one.seeds == (0, 1) and one.n == 8
    by_base = np.array([[2 / 8 + 6 / 8], [3 / 8 + 5 / 8]]) / 2
    assert by_base[0] == by_base[1]  # so that what is left is of prompts alone
    reads = [read for curve in drawn(*cells) for read in readings.reads([curve], [1.0], "harmful", own=True).values()]
    table = np.stack([read.table[2].mean(axis=1) for read in reads], axis=1)
    wanted = crossed_interval(table, Beside())
    assert (one.low, one.high) == pytest.approx((max(0, wanted.low), min(1, wanted.high)))


def test_what_lines_miss_does_not_shrink_with_the_number_of_bases(tmp_path):
    (curve,) = drawn(run(tmp_path, "lab-a", "dlma", 4.0, 2))
    (read,) = readings.reads([curve], [1.0], "harmful", own=True).values()
    missing = dataclasses.replace(read, sd=0.3, df=2.0, left_out=4)
    for bases in (1, 2, 3):
        _, table, beside = pooled_curves.combined([[(1, missing)]] * bases)
        assert table.shape == (8, bases) and (beside.sd, beside.df) == (pytest.approx(0.3), 2.0)
    _, table, beside = pooled_curves.combined([[(1, missing), (-1, missing)]])
    assert (table == 0).all() and beside.sd == pytest.approx(0.3 * math.sqrt(2))


def test_of_a_base_of_which_it_is_not_known_what_lines_miss_the_others_say_it_and_nothing_is_shown(tmp_path):
    (curve,) = drawn(run(tmp_path, "lab-a", "dlma", 4.0, 2))
    (read,) = readings.reads([curve], [1.0], "harmful", own=True).values()
    known, exact = (dataclasses.replace(read, sd=sd, df=3.0, left_out=2) for sd in (0.2, 0.0))
    assert read.left_out == 0
    for columns, sd in (([known, read], 0.2), ([known, exact], 0.1), ([read, read], 0.0)):
        assert pooled_curves.combined([[(1, one)] for one in columns])[2].sd == pytest.approx(sd)
    gap = [one for one in pooled_curves._value([known, read]) if one.statistic == "gap"]
    assert gap[0].n == 0


def test_a_row_is_held_against_the_curve_of_its_own_choice_or_against_none(tmp_path):
    """Of dlma at two shares of turned labels one ends short on a base: nothing there to hold a row of that share to."""
    ends = {
        ("dlma", 0.2): (4.0, 4.0),
        ("dlma", 0.35): (4.0, 0.5),
        ("rlcd", 0.2): (4.0, 4.0),
        ("rlcd", 0.35): (4.0, 4.0),
    }
    cells = [
        plant(
            tmp_path / f"{base}-{method}-{flips}",
            base=base,
            method=method,
            rows=fixed("base", [0.0] * 8, [True] * 8) + fixed("aligned", [kl] * 8, [i < 3 for i in range(8)]),
            overrides={"labels.flips": flips},
        )
        for (method, flips), kls in ends.items()
        for base, kl in zip(BASES, kls)
    ]
    rows = sweep_settings.settings([run_folders.read_cell(folder) for folder in cells])
    told = pooled_curves.results(curves.along_kl(rows, ["recipe.lr"]), "harmful", "dlma", [1.0])
    compared = [(one.label, one.versus) for one in told if one.statistic == "difference"]
    assert compared == [("rlcd, flips=0.2", "dlma, flips=0.2")]
    assert pooled_curves.results([], "refused_safe", "dlma", [1.0]) == []


def test_a_lone_curve_of_the_name_is_not_held_against_one_of_another_choice(tmp_path):
    """dlma was trained at one share of turned labels only: rows of another are held against nothing."""
    cells = [
        plant(tmp_path / f"{method}-{flips}", method=method, overrides={"labels.flips": flips}, tag=f"{flips}")
        for method, flips in (("dlma", 0.2), ("rlcd", 0.2), ("rlcd", 0.35))
    ]
    rows = sweep_settings.settings([run_folders.read_cell(folder) for folder in cells])
    told = readings.results(curves.along_kl(rows, ["recipe.beta"]), "harmful", "dlma", [0.3])
    assert {(one.label, one.versus) for one in told if one.statistic == "difference"} == {("rlcd, flips=0.2", "dlma")}


def test_rows_over_bases_are_not_said_to_speak_of_one_seed(tmp_path):
    cells = [run(tmp_path, base, method, 4.0, harm) for base in BASES for method, harm in (("dlma", 2), ("rlcd", 4))]
    told = pooled_curves.results(drawn(*cells), "harmful", "dlma", [1.0])
    said = tables.notes(told)
    assert "Rows with one seed speak of that seed only." not in said and any("new bases" in line for line in said)


def test_readings_that_share_less_than_two_prompts_or_no_seed_are_not_added_up(tmp_path):
    (curve,) = drawn(run(tmp_path, "lab-a", "dlma", 4.0, 2))
    (read,) = readings.reads([curve], [1.0], "harmful", own=True).values()
    seeds, prompts, values = read.table
    other = dataclasses.replace(read, table=(seeds, ["p0", *(f"q{i}" for i in range(7))], values))
    later = dataclasses.replace(read, table=([7], prompts, values))
    assert pooled_curves.combined([[(1, read)], [(1, other)]]) is None
    assert pooled_curves.combined([[(1, read)], [(1, later)]]) is None
    turned = dataclasses.replace(read, table=(seeds, prompts[::-1], values[::-1]))
    _, table, _ = pooled_curves.combined([[(1, read), (-1, turned)]])
    assert (table == 0).all()  # by the prompts' names, not by their order


def test_a_level_that_one_base_does_not_reach_is_left_out(tmp_path):
    cells = [run(tmp_path, "lab-a", "dlma", 4.0, 2), run(tmp_path, "lab-b", "dlma", 0.5, 4)]
    assert found(drawn(*cells)) == {} and found(drawn(*cells), at=0.25)
    assert found(drawn(cells[0])) == {}  # one base is not pooled


def test_a_sweep_over_bases_has_them_beside_the_bases_own(tmp_path):
    kls = {"dlma": (1.0, 4.0), "rlcd": (0.5, 3.0)}
    cells = [
        run(tmp_path, base, method, kl, 4 - 2 * i, rate=1.0 + i)
        for base in BASES
        for method, two in kls.items()
        for i, kl in enumerate(two)
    ]
    rows = sweep_settings.settings([run_folders.read_cell(folder) for folder in cells])
    chosen = {"pool_bases": True, "kl_levels": [0.5], "curves_against": "dlma", "curve_axis": ["recipe.lr"]}
    told = all_results.results(rows, options(**chosen))
    at = [(one.base, one.method) for one in told if (one.axis, one.statistic) == ("kl", "difference")]
    assert ("lab-a", "rlcd") in at and ("lab-a + lab-b", "rlcd") in at
    without = all_results.results(rows, options(**{**chosen, "pool_bases": False}))
    assert not [one for one in without if " + " in one.base]
