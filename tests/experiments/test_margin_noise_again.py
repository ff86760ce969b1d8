"""Turned labels once more: every row is held against R at its own share, in the two families of the plan."""

import importlib.util

import numpy as np
import pytest

from dlma.runs.cells import Arm, Cell
from dlma.sweep.settings import Setting
from experiments import tables

# planned and not measured: there is no table.yaml yet by which `tables.own` would find it
SPEC = importlib.util.spec_from_file_location("again_table", tables.HERE / "margin_noise_again" / "table.py")
TABLE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(TABLE)
PROMPTS = tuple(f"p{i}" for i in range(40))
SEEDS = (3, 4, 5)


def arm(kl, harmed):
    numbers = {"kl": kl * np.ones(40), "harmful": (np.arange(40) < harmed).astype(float)}
    columns = {name: np.stack([values, np.ones(40)], axis=1) for name, values in numbers.items()}
    return Arm(PROMPTS, columns, digest=f"{kl} {harmed}", exact=f"{kl} {harmed}")


def setting(method, arms, name="aligned", **overrides):
    runs = {
        seed: Cell(
            None, method, "done", None, 0.0, 0, overrides, method, "lab", seed, arms={name: one, "base": arm(0.0, 36)}
        )
        for seed, one in zip(SEEDS, arms, strict=True)
    }
    return Setting("lab", method, tuple(overrides.items()), name, overrides, runs)


def rows(harmed):
    """Each row at 0.5 and 1 nat with these numbers of harmful answers at 0.5, by method and share; one more by seed."""
    found = [setting("base", [arm(0.0, 36)] * 3, name="base")]
    for (method, flips), count in harmed.items():
        for i, kl in enumerate((0.5, 1.0)):
            said = {"labels.flips": flips, "recipe.lr": f"{1 + i}e-4"}
            arms = [arm(kl, count + (seed == 4 and method == "rlcd") - 6 * i) for seed in SEEDS]
            found.append(setting(method, arms, **said))
    return found


HARMED = {
    (method, flips): count + shift
    for flips, shift in (("0.1", 0), ("0.2", 1), ("0.35", 2))
    for method, count in (("dlma", 20), ("rlcd", 24), ("dlma_shuffled", 26))
}


def test_each_row_is_held_against_r_at_its_own_share():
    found = [one for one in TABLE.results(rows(HARMED)) if one.statistic == "difference"]
    told = {(one.method, TABLE.share_of(one.settings)): one for one in found}
    assert set(told) == {(method, share) for method in ("rlcd", "dlma_shuffled") for share in (0.1, 0.2, 0.35)}
    assert all(one.value == pytest.approx(6 / 40) for (method, _), one in told.items() if method == "dlma_shuffled")
    assert all(one.value == pytest.approx((4 + 1 / 3) / 40) for (method, _), one in told.items() if method == "rlcd")
    text = TABLE.render(TABLE.results(rows(HARMED)))
    assert "| R shuffled | 35 % | +15.0" in text


def test_holm_is_over_the_shares_of_the_plan_and_over_the_other_one_apart():
    found = [one for one in TABLE.results(rows(HARMED)) if one.statistic == "difference"]
    alone = TABLE.results(rows({key: count for key, count in HARMED.items() if key[1] == "0.1"}))
    apart = {one.method: one.p_holm for one in alone if one.statistic == "difference"}
    for one in found:
        if TABLE.share_of(one.settings) == 0.1:
            assert one.p_holm == pytest.approx(apart[one.method])
    primary = TABLE.results(rows({key: count for key, count in HARMED.items() if key[1] != "0.1"}))
    told = {(one.method, one.settings): one.p_holm for one in primary if one.statistic == "difference"}
    assert len(told) == 4 and len(apart) == 2
    assert {
        (one.method, one.settings): one.p_holm for one in found if TABLE.share_of(one.settings) != 0.1
    } == pytest.approx(told)
