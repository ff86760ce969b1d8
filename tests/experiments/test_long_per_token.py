"""R per token beside R: rows are named by their margin alone, and held against each other along their own ways."""

import numpy as np
import pytest

from dlma.runs.cells import Arm, Cell
from dlma.sweep.results import label
from dlma.sweep.settings import Setting
from experiments import tables

TABLE = tables.own("long_per_token")
PROMPTS = tuple(f"p{i}" for i in range(6))
ROWS = {
    "no margin": ("dlma", {"recipe.margin_weight": "0.0"}),
    "R": ("dlma", {"recipe.margin_weight": "0.2"}),
    "R per token": ("dlma", {"recipe.margin_weight": "16.6", "labels.per_token": "true"}),
    "R per token, shuffled": ("dlma_shuffled", {"recipe.margin_weight": "16.6", "labels.per_token": "true"}),
}


def arm(kl, harmless):
    numbers = {"kl": kl, "harmlessness": harmless}
    columns = {name: np.stack([value * np.ones(6), np.ones(6)], axis=1) for name, value in numbers.items()}
    return Arm(PROMPTS, columns, digest=f"{kl} {harmless}", exact=f"{kl} {harmless}")


def setting(method, name, one, overrides):
    runs = {
        seed: Cell(None, method, "done", None, 0, 0, overrides, method, "long", seed, arms={name: one})
        for seed in (0, 1)
    }
    return Setting("long", method, tuple(overrides.items()), name, overrides, runs)


def rows(height):
    """The base, and each row's way through 0.25 to 1 nat; `height` says by row how far above 0.1 it stands."""
    found = [setting("base", "base", arm(0.0, 0.1), {})]
    for name, (method, overrides) in ROWS.items():
        for point, kl in (("step-1", 0.25), ("step-2", 0.5), ("aligned", 1.0)):
            found.append(setting(method, point, arm(kl, 0.1 + height[name]), overrides))
    return found


def test_a_row_has_the_name_of_its_margin():
    told = [TABLE.named(setting(method, "aligned", arm(1.0, 0.2), said)) for method, said in ROWS.values()]
    assert [TABLE.margin_of(row) for row in told] == list(ROWS)
    assert [TABLE.margin_of(TABLE.named(row)) for row in told] == list(ROWS)  # committed rows, which say no more


def test_rows_are_held_against_no_margin_and_the_margin_per_token_against_the_whole_one():
    height = dict(zip(ROWS, (0.2, 0.24, 0.3, 0.21), strict=True))
    found = [one for one in TABLE.results(rows(height)) if one.statistic == "difference"]
    names = {label(*key): name for key, name in TABLE.NAMES.items()}
    told = {(names[one.label], names[one.versus], one.at): one for one in found}
    assert set(told) == {(one, other, at) for one, other in TABLE.COMPARED for at in (0.25, 0.5)}
    for (one, other, _), less in told.items():
        assert less.value == pytest.approx(height[one] - height[other], abs=1e-6) and less.seeds == (0, 1)
    text = TABLE.render(TABLE.results(rows(height)))
    assert "| R per token | R | 0.5 nats | +0.060" in text
