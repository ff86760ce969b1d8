"""The corners of the map: which way is read at a KL, what a corner's bases come to, and what a dial adds."""

import dataclasses
import math

import numpy as np
import pytest

from dlma.runs.cells import Arm, Cell
from dlma.sweep.results import Result
from dlma.sweep.settings import Setting
from experiments import tables

TABLE = tables.own("phase_corners")
PROMPTS = tuple(f"p{i}" for i in range(40))
GENTLE, STRONG = {"recipe.beta": "1.0"}, {"recipe.beta": "0.3"}
SEEDS = (1, 2, 3)


def arm(kl, harmed):
    harm = np.arange(40) < harmed
    columns = {
        name: np.stack([value * np.ones(40), np.ones(40)], axis=1) for name, value in (("kl", kl), ("harmful", harm))
    }
    return Arm(PROMPTS, columns, digest=f"{kl} {harmed}", exact=f"{kl} {harmed}")


def setting(base, method, name, one, overrides):
    run = Cell(None, method, "done", None, 0.0, 0, overrides, method, base, 0, config=overrides, arms={name: one})
    return Setting(base, method, tuple(overrides.items()), name, overrides, {0: run})


def base_of(corner, seed):
    return f"lab-{TABLE.name_of(corner)}s{seed}"


def rows(harmed, ends=None):
    """At 0.1, 0.3 and 0.4 nats of every training's way stand policies with these numbers of harmful answers of 40.

    harmed: by (corner, method, seed): (at 0.1, from 0.3 on) of the gentler setting; the stronger one has one more
    ends: by (base, overrides' beta): the way is cut at its second policy, which then stands at this KL
    """
    found = []
    for (corner, method, seed), counts in harmed.items():
        base = base_of(corner, seed)
        if not any(row.base == base for row in found):
            found.append(setting(base, "base", "base", arm(0.0, 40), {}))
        for further, overrides in ((0, GENTLE), (1, STRONG)):
            end = (ends or {}).get((base, overrides["recipe.beta"]))
            kls, names = (
                ((0.1, 0.3, 0.4), ("step-1", "step-2", "aligned"))
                if end is None
                else ((0.1, end), ("step-1", "aligned"))
            )
            for name, kl, n in zip(names, kls, (*counts, counts[1])):
                found.append(setting(base, method, name, arm(kl, n + further), overrides))
    return found


@pytest.fixture(autouse=True)
def cards(monkeypatch):
    """A base's card is what its name says."""

    def of(row):
        obedience, judge = row.base.removeprefix("lab-o").rpartition("s")[0].split("j")
        dials = dict(zip(TABLE.DIALS, (float(obedience), float(judge)), strict=True))
        values = {**dials, **dict.fromkeys(TABLE.base_cards.RIGHT, 0.5)}
        return [Result(row.base, TABLE.CARD, name, 9, value, arm="base") for name, value in values.items()]

    monkeypatch.setattr(TABLE.base_cards, "results", of)


def planted(corner, at_one=(20, 24, 28), at_three=(10, 10, 10)):
    """dlma, rlcd and rlaif with these counts at 0.1 and at 0.3 nats, alike on all bases."""
    return {
        (corner, method, seed): (at_one[i], at_three[i])
        for seed in SEEDS
        for i, method in enumerate(("dlma", "rlcd", "rlaif"))
    }


def test_the_gentler_way_is_read_where_it_gets_there():
    told = TABLE.read_of(TABLE.results(rows(planted((0.1, 0.95)))))
    assert told["o0.1j0.95", "dlma", 0.1].value == pytest.approx(20 / 40)
    assert told["o0.1j0.95", "rlaif", 0.1].value == pytest.approx(28 / 40)
    assert told["o0.1j0.95", "dlma", 0.3].value == pytest.approx(10 / 40)


def test_the_stronger_one_is_read_where_the_gentler_ends_short():
    ends = {(base_of((0.1, 0.95), seed), "1.0"): 0.2 for seed in SEEDS}
    told = TABLE.read_of(TABLE.results(rows(planted((0.1, 0.95)), ends)))
    assert told["o0.1j0.95", "dlma", 0.1].value == pytest.approx(20 / 40)  # the gentler, which ends at 0.2
    assert told["o0.1j0.95", "dlma", 0.3].value == pytest.approx(11 / 40)  # the stronger, with one more


def test_a_difference_is_of_the_methods_on_each_base_and_its_interval_of_the_bases():
    harmed = planted((0.75, 0.0)) | {((0.75, 0.0), "rlaif", seed): (28 + seed - 2, 10) for seed in SEEDS}
    found = TABLE.results(rows(harmed))
    one = {(each.method, each.at): each for each in TABLE.differences(found)}["rlaif", 0.1]
    assert one.value == pytest.approx(8 / 40) and one.versus == "dlma" and one.base == "o0.75j0.0"
    assert one.low < 8 / 40 < one.high and len(TABLE.differences(found)) == 4


def test_comparisons_of_corners_that_were_not_measured_count_in_holm():
    few = {(one.method, one.at): one.p_holm for one in TABLE.differences(TABLE.results(rows(planted((0.1, 0.95)))))}
    every = {corner: planted(corner, (20, 20, 20)) for corner in ((0.1, 0.0), (0.75, 0.0), (0.75, 0.95))}
    harmed = planted((0.1, 0.95)) | {key: counts for one in every.values() for key, counts in one.items()}
    whole = [one for one in TABLE.differences(TABLE.results(rows(harmed))) if one.base == "o0.1j0.95"]
    assert {(one.method, one.at): one.p_holm for one in whole} == pytest.approx(few)  # all others have a p of 1


def test_a_corner_of_which_one_base_does_not_get_there_is_not_compared():
    ends = {(base_of((0.1, 0.0), 2), beta): 0.2 for beta in ("1.0", "0.3")}
    found = TABLE.results(rows(planted((0.1, 0.0)), ends))
    assert {one.at for one in TABLE.differences(found)} == {0.1}
    assert "| o0.1j0.0 | 0.3 nats | `dlma` | not reached |" in TABLE.render(found)


def test_what_a_dial_adds_is_the_difference_of_the_differences():
    harmed = planted((0.1, 0.0), at_one=(20, 24, 30)) | planted((0.1, 0.95), at_one=(20, 21, 18))
    harmed |= planted((0.75, 0.0), at_one=(12, 15, 20))
    told = {(one.base, one.at): one for one in TABLE.effects(TABLE.results(rows(harmed)))}
    assert set(told) == {(name, at) for name in ("obedience 0.1", "judge 0") for at in (0.1, 0.3)}  # no diagonal
    judged = told["obedience 0.1", 0.1]
    assert (judged.method, judged.versus) == ("rlaif", "dlma") and judged.value == pytest.approx((-2 - 10) / 40)
    obeyed = told["judge 0", 0.1]
    assert (obeyed.method, obeyed.versus) == ("dlma", "rlcd") and obeyed.value == pytest.approx((-3 - -4) / 40)


def test_bases_are_paired_by_their_seeds_and_a_corner_of_fewer_bases_is_paired_with_those_it_has():
    harmed = planted((0.1, 0.0)) | planted((0.1, 0.95), at_one=(20, 24, 26))
    whole = TABLE.results(rows(harmed))
    turned = TABLE.results(rows(dict(reversed(harmed.items()))))
    key = [(one.base, one.at, one.value, one.low, one.high) for one in TABLE.effects(whole)]
    assert key == [(one.base, one.at, one.value, one.low, one.high) for one in TABLE.effects(turned)] != []
    fewer = {name: counts for name, counts in harmed.items() if name[0] != (0.1, 0.95) or name[2] != 2}
    assert [one.value for one in TABLE.effects(TABLE.results(rows(fewer)))] == pytest.approx([one[2] for one in key])


def test_the_map_says_who_is_told_apart_and_who_is_not():
    found = TABLE.results(rows(planted((0.1, 0.0)) | planted((0.1, 0.95))))
    text = TABLE.render(found)
    assert "`dlma` 50.0, `rlcd` 60.0, `rlaif` 70.0" in text and math.isclose(TABLE.LEVELS[0], 0.1)
    same = [line for line in text.splitlines() if line.startswith("| 0.1 | 0.3 nats")]
    assert len(same) == 1 and "dlma" in same[0]
    sure = [
        dataclasses.replace(one, p_holm=0.01 if one.method == "rlaif" else 1.0)
        if one.statistic == "difference"
        else one
        for one in found
    ]
    text = TABLE.render(sure)
    assert text.count("**`rlaif` worse than `dlma`**") >= 2 and "`rlcd` not told apart" in text
