"""The simulated size and power: what is committed is what the formula foretells, and what a few trials draw again."""

import csv
import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from dlma.statistics import significance

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "power"
SPEC = importlib.util.spec_from_file_location("power_measure", FOLDER / "measure.py")
measure = importlib.util.module_from_spec(SPEC)
sys.modules["power_measure"] = measure
SPEC.loader.exec_module(measure)
ROWS = list(csv.DictReader((FOLDER / "power.csv").open()))


def test_every_design_was_simulated():
    designs = {(float(row["moved"]), float(row["uneven"]), int(row["seeds"])) for row in ROWS}
    assert len(designs) == len(measure.MOVED) * len(measure.UNEVEN) * len(measure.SEEDS) and len(ROWS) == 2 * len(
        designs
    )
    assert {int(row["trials"]) for row in ROWS} == {measure.TRIALS}


@pytest.mark.parametrize("row", [row for row in ROWS if row["uneven"] == "1.0"], ids=lambda row: "-".join(row.values()))
def test_the_power_is_that_of_the_formula_and_the_size_that_of_the_test(row):
    tables = measure.COMPARISONS if row["test"] == "pooled" else 1
    seed = 2 * float(row["moved"]) ** 2
    of = significance.TwoWayComponents(measure.OF_PROMPT, seed, measure.OF_REST, int(row["seeds"]), tables)
    assert float(row["power"]) == pytest.approx(significance.power(measure.PROMPTS, measure.EFFECT, of), abs=0.04)
    noise = 3 * math.sqrt(0.05 * 0.95 / measure.TRIALS)
    assert float(row["size"]) < 0.05 + noise and (row["test"] == "its own" or float(row["size"]) > 0.05 - noise)


def test_a_few_trials_drawn_again_come_to_the_committed_shares():
    (row,) = [row for row in ROWS if list(row.values())[:4] == ["0.015", "3", "1.0", "pooled"]]
    found = measure.simulate(np.random.default_rng(99), 3, 0.015, 1.0, 200)["pooled"]
    for name, share in zip(("size", "power", "within"), found, strict=True):
        wanted = float(row[name])
        assert share == pytest.approx(wanted, abs=4 * math.sqrt(max(wanted * (1 - wanted), 0.01) / 200))
