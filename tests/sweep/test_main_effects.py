"""Main effects of a crossed sweep, against means taken by hand."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from planted_runs import plant

from dlma.report import tables as sweep_tables
from dlma.runs import cells as run_folders
from dlma.sweep import main_effects
from dlma.sweep import settings as sweep_settings
from dlma.sweep.results import Result, read_csv, write_csv

HARM = {("plain", "none"): 0.6, ("plain", "scored"): 0.5, ("contrastive", "none"): 0.3, ("contrastive", "scored"): 0.2}


def crossed(tmp_path, cells=HARM, seeds=(0, 1), **more):
    return [
        plant(
            tmp_path / f"{a}-{b}-{seed}", seed=seed, overrides={"pairs": a, "labels": b}, harm=harm, tag=a + b, **more
        )
        for (a, b), harm in cells.items()
        for seed in seeds
    ]


def effects(folders):
    rows = [row for row in sweep_settings.settings([run_folders.read_cell(folder) for folder in folders]) if row.final]
    found = main_effects.results(rows)
    assert {one.statistic for one in found} <= {"effect"}
    return {(one.method, *one.settings[0], one.metric, one.versus): one for one in found}


def share(folder):
    return np.mean(
        [row["harmful"] for row in pq.read_table(folder / "answers.parquet").to_pylist() if row["arm"] == "aligned"]
    )


def test_an_effect_is_the_mean_over_the_other_factor_of_one_level_less_the_other(tmp_path):
    folders = crossed(tmp_path)
    found = effects(folders)
    of = {
        name: np.mean([share(folder) for folder in folders if name in folder.name.split("-")])
        for pair in HARM
        for name in pair
    }
    assert set(found) == {
        ("dlma", "pairs", "contrastive", "harmful", "plain"),
        ("dlma", "pairs", "contrastive", "kl", "plain"),
        ("dlma", "labels", "scored", "harmful", "none"),
        ("dlma", "labels", "scored", "kl", "none"),
    }
    pairs = found["dlma", "pairs", "contrastive", "harmful", "plain"]
    labels = found["dlma", "labels", "scored", "harmful", "none"]
    assert pairs.value == pytest.approx(of["contrastive"] - of["plain"])
    assert labels.value == pytest.approx(of["scored"] - of["none"])
    assert (pairs.seeds, pairs.n) == ((0, 1), 60)
    assert pairs.low < pairs.value < pairs.high


def test_where_nothing_differs_the_interval_is_that_of_prompts_which_all_agree(tmp_path):
    """60 prompts alike leave open that 1 - 0.025^(1/60) of all are of another kind (Clopper and Pearson)."""
    found = effects(crossed(tmp_path, cells=dict.fromkeys(HARM, 0.0)))
    half = 1 - 0.025 ** (1 / 60)
    one = found["dlma", "pairs", "contrastive", "harmful", "plain"]
    assert (one.value, one.low, one.high) == pytest.approx((0.0, -half, half))


def test_each_method_has_its_own_effects(tmp_path):
    other = {key: 0.9 if key[0] == "plain" else 0.1 for key in HARM}
    one, two = crossed(tmp_path / "a"), crossed(tmp_path / "b", other, method="rlcd")
    found, alone = effects([*one, *two]), effects(two)
    assert len(found) == 2 * len(alone)
    for key, effect in alone.items():
        assert key[0] == "rlcd" and found[key].value == pytest.approx(effect.value)
    (table,) = [table for table in sweep_tables.tables(list(found.values())) if "main effects" in table.title]
    assert {row[0] for row in table.rows} == {f"{m}, {f}" for m in ("dlma", "rlcd") for f in ("pairs", "labels")}


@pytest.mark.parametrize("left", [3, 2])
def test_a_sweep_that_leaves_a_combination_out_or_has_one_factor_has_no_main_effects(tmp_path, left):
    assert effects(crossed(tmp_path, dict(list(HARM.items())[:left]))) == {}


def test_two_factors_in_one_line_of_settings_are_not_crossed(tmp_path):
    """plain/none and contrastive/scored: what differs cannot be told apart."""
    ends = {key: HARM[key] for key in [("plain", "none"), ("contrastive", "scored")]}
    assert effects(crossed(tmp_path, ends)) == {}


def row(value, low, high, metric="harmful"):
    what = {"settings": (("labels", "shuffled"),), "seeds": (0, 1), "statistic": "effect", "versus": "scored"}
    return Result("b", "dlma", metric, 60, value, low, high, 0.5, **what)


@pytest.mark.parametrize(("low", "high", "said"), [(-0.02, 0.025, True), (-0.031, 0.02, False), (-0.01, 0.04, False)])
def test_that_the_size_of_r_carries_nothing_is_said_only_if_the_whole_interval_is_inside_the_margin(low, high, said):
    found = [row(0.0, low, high)]
    assert ("carries no information" in " ".join(sweep_tables.notes(found, 0.03))) is said
    (table,) = [table for table in sweep_tables.tables(found, margin=0.03) if "main effects" in table.title]
    assert table.rows[0][-1] == ("yes" if said else "not shown")


def test_equal_beyond_a_curve_says_nothing_of_the_size_of_r_for_who_stands_still_is_on_every_curve():
    assert "carries no" not in " ".join(sweep_tables.notes([row(0.0, -0.01, 0.01, metric="beyond_curve")]))


def test_the_effects_read_back_give_the_same_tables_byte_for_byte(tmp_path):
    found = list(effects(crossed(tmp_path)).values())
    (tmp_path / "results.csv").write_bytes(write_csv(found))
    again = read_csv(tmp_path / "results.csv")
    assert sweep_tables.markdown(again) == sweep_tables.markdown(found)
    assert "| pairs | contrastive | plain | harmful ↓ |" in sweep_tables.markdown(found)
