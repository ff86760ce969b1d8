"""A row read at its own KL on the way of dlma's training: the difference by hand, seed by seed and prompt by prompt."""

import dataclasses
import math

import numpy as np
import pytest

from dlma.runs.cells import Arm, Cell
from dlma.sweep.settings import Setting
from experiments import tables

TABLE = tables.own("label_free_real")
PROMPTS = tuple(f"p{i}" for i in range(6))
OFF = np.array([-0.3, 0.3, -0.2, 0.2, -0.1, 0.1])


def way(kl):
    """Sentiment on the way that is planted: a line in the root of KL, which the fit draws as it is."""
    return 0.5 + 0.1 * math.sqrt(kl)


def arm(kl, sentiment):
    numbers = {"kl": kl, "sentiment": sentiment}
    columns = {name: np.stack([value * np.ones(6), np.ones(6)], axis=1) for name, value in numbers.items()}
    return Arm(PROMPTS, columns, digest=f"{kl}", exact=f"{kl}")


BASE = arm(0.0, way(0.0))


def setting(method, name, arms):
    runs = {
        seed: Cell(None, method, "done", None, 0.0, 0, {}, method, "real", seed, arms={"base": BASE, name: one})
        for seed, one in enumerate(arms)
    }
    return Setting("real", method, (), name, {}, runs)


def rows(*others, kls=(1.0, 4.0)):
    """dlma's way through these KLs in one seed, twice as far in another; and rows of others, as (method, arms)."""
    points = [setting("base", "base", [BASE] * 2)]
    for name, kl in zip(("step-000003", "aligned"), kls, strict=True):
        points.append(setting("dlma", name, [arm(kl, way(kl)), arm(2 * kl, way(2 * kl))]))
    return [*points, *(setting(method, "aligned", arms) for method, arms in others)]


def differences(found):
    return {one.method: one for one in TABLE.compared(found)}


def test_a_row_is_held_against_the_way_at_its_own_kl_in_each_seed():
    found = TABLE.results(rows(("rlcd", [arm(2.0, way(2.0) + 0.1), arm(5.0, way(5.0) + 0.3)])))
    one = differences(found)["rlcd"]
    assert one.value == pytest.approx(0.2, abs=1e-9) and one.seeds == (0, 1) and one.versus == "dlma"
    (gap,) = [one for one in found if one.statistic == "gap"]
    assert (gap.low, gap.high) == (pytest.approx(1.5), pytest.approx(6.0))  # means over seeds of 1 and 2, of 4 and 8


def test_each_seed_counts_by_its_own_end_and_not_by_the_least():
    """dlma ends at 4 nats in one seed, at 8 in the other; the mean of 3.5 and 7 is beyond the first."""
    found = TABLE.results(rows(("rlcd", [arm(3.5, way(3.5) + 0.1), arm(7.0, way(7.0) + 0.1)])))
    assert differences(found)["rlcd"].value == pytest.approx(0.1, abs=1e-9)


def test_a_prompt_that_is_farther_along_the_way_adds_nothing_for_it():
    slope = 0.05 / math.sqrt(2.0)  # of the way at 2 nats
    moved = arm(2.0 + OFF, way(2.0) + 0.1 + slope * OFF)
    one = differences(TABLE.results(rows(("rlcd", [moved, moved]))))["rlcd"]
    assert one.value == pytest.approx(0.1, abs=1e-9)
    assert one.high - one.low < 1e-5


@pytest.mark.parametrize("kl", [4.5, 9.0])
def test_a_row_that_ends_farther_out_in_some_seed_has_no_value(kl):
    found = TABLE.results(rows(("rlcd", [arm(kl, 0.9), arm(kl, 0.9)])))
    assert not differences(found) and "beyond its end" in TABLE.render(found)


def test_a_second_training_of_dlma_draws_its_way_on():
    far = [setting(TABLE.FAR, name, [arm(kl, way(kl))] * 2) for name, kl in (("step-000003", 6.0), ("aligned", 12.0))]
    found = TABLE.results([*rows(("rlcd", [arm(9.0, way(9.0) + 0.1)] * 2)), *far])
    assert differences(found)["rlcd"].value == pytest.approx(0.1, abs=1e-9) and list(differences(found)) == ["rlcd"]


def test_the_verdicts_are_those_of_the_plan():
    near = TABLE.results(
        rows(
            ("far", [arm(2.0, way(2.0) + 0.5 + 0.01 * OFF)] * 2),
            ("near", [arm(2.0, way(2.0) + 0.001 * OFF)] * 2),
            ("vague", [arm(2.0, way(2.0) + 0.01 + OFF)] * 2),
        )
    )
    gaps = {one.method: one for one in near if one.statistic == "gap"}
    said = {method: TABLE.verdict(one, gaps[method]) for method, one in differences(near).items()}
    assert said == {"far": "better", "near": "the same", "vague": "undecided"}
    unknown = dataclasses.replace(gaps["near"], n=0)  # nothing was left out, so that nothing says what is missed
    assert TABLE.verdict(differences(near)["near"], unknown) == "undecided"
