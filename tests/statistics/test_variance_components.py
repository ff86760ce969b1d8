"""Bases as a third factor: known components come back, and a small table by hand."""

import math

import numpy as np
import pytest

from dlma.statistics.intervals import crossed_interval
from dlma.statistics.variance_components import components, nested_interval


def draw(rng, n, bases, seeds, *, prompt=1.0, base=0.0, seed=0.0, mixed=0.0, error=1.0):
    parts = (
        rng.normal(0, math.sqrt(prompt), (n, 1, 1)) + rng.normal(0, math.sqrt(base), (1, bases, 1)),
        rng.normal(0, math.sqrt(seed), (1, bases, seeds)) + rng.normal(0, math.sqrt(mixed), (n, bases, 1)),
        rng.normal(0, math.sqrt(error), (n, bases, seeds)),
    )
    return sum(parts)


def test_components_come_back_on_average():
    rng, planted = np.random.default_rng(0), dict(prompt=1.0, base=0.5, seed=0.3, mixed=0.4, error=0.8)
    found = [components(draw(rng, 60, 8, 5, **planted)) for _ in range(300)]
    means = [
        np.mean([getattr(one, name) for one in found]) for name in ("prompt", "base", "seed", "prompt_base", "error")
    ]
    assert means == pytest.approx(list(planted.values()), rel=0.08)


def test_components_of_a_table_that_only_bases_and_seeds_move():
    values = np.zeros((4, 2, 2)) + np.array([[-1.0, 1.0], [3.0, 5.0]])  # base means 0 and 4, seeds 1 off
    found = components(values)
    # MS_base = 4 2 (4 + 4) / 1 = 64, MS_seed = 4 4 / (2 1) = 8: (64 - 8) / 8 and 8 / 4
    assert (found.prompt, found.base, found.seed, found.prompt_base, found.error) == (0.0, 7.0, 2.0, 0.0, 0.0)


def test_the_interval_is_over_bases_and_counts_every_run():
    values = draw(np.random.default_rng(1), 30, 3, 4, base=0.5, seed=0.2)
    got, want = nested_interval(values), crossed_interval(values.mean(axis=2))
    assert (got.value, got.low, got.high, got.n, got.seeds) == (want.value, want.low, want.high, 30, 12)
    alone, seeds = nested_interval(values[:, :1]), crossed_interval(values[:, 0])
    assert (alone.low, alone.high, alone.seeds) == (seeds.low, seeds.high, 4)


def test_what_is_no_table_of_three_factors_is_refused():
    with pytest.raises(ValueError, match="shape"):
        nested_interval(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="two prompts, bases and seeds"):
        components(np.zeros((3, 1, 2)))
