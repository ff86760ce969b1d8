"""Tests between methods: against scipy where it has them, against enumeration, and dual to the intervals."""

import math

import numpy as np
import pytest
from scipy import stats

from dlma.statistics import significance
from dlma.statistics.intervals import Estimate, crossed_half, crossed_interval


def table(n=40, k=3, shift=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return shift + rng.normal(size=(n, 1)) + 0.2 * rng.normal(size=(1, k)) + 0.5 * rng.normal(size=(n, k))


def test_one_seed_is_scipys_paired_t():
    a, b = table(k=1)[:, 0], table(k=1, seed=1)[:, 0]
    assert significance.p_value(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-10)
    assert significance.p_value((a - b)[:, None]) == significance.p_value(a - b)


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.5, 2.0])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_p_is_the_level_at_which_the_interval_touches_zero(k, shift):
    values = table(k=k, shift=shift)
    p = significance.p_value(values)
    assert crossed_half(values, p / 2) == pytest.approx(abs(values.mean()), rel=1e-6)
    e = crossed_interval(values)
    assert (p < 0.05) == (not e.low <= 0 <= e.high)


def test_p_where_there_is_nothing_to_tell():
    assert significance.p_value(np.zeros((5, 3))) == 1.0
    assert significance.p_value(np.ones((5, 3))) == 0.0
    assert math.isnan(significance.p_value([0.3]))
    with pytest.raises(ValueError, match="finite"):
        significance.p_value([0.1, math.nan])


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04, and never falling
    assert significance.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert significance.holm([0.6, 0.9]) == [1.0, 1.0]
    assert significance.holm([]) == []
    found = significance.holm([0.02, math.nan, 0.03])  # two tests
    assert found[0] == pytest.approx(0.04) and math.isnan(found[1]) and found[2] == pytest.approx(0.04)


def test_the_non_inferiority_bound_is_the_worse_end():
    lower = significance.non_inferiority(Estimate(-0.02, -0.05, 0.01, 100), "lower")
    assert lower.worst == 0.01 and lower.holds(0.03) and not lower.holds(0.01)
    higher = significance.non_inferiority(Estimate(-0.02, -0.05, 0.01, 100), "higher")
    assert higher.worst == 0.05 and not higher.holds(0.03)
    assert significance.non_inferiority(Estimate(0.5, 0.4, 0.6, 100), "higher").worst == 0.0
    with pytest.raises(ValueError, match="direction"):
        significance.non_inferiority(Estimate(0, 0, 0, 1), "")


def test_prompts_needed_is_the_text_book_number_for_one_seed():
    values = np.array([0.0, 1.0, 0.0, 1.0, 0.5, 0.5])  # mean 0.5, variance 0.2
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert significance.prompts_needed(values) == math.ceil(z**2 * 0.2 / 0.25)


def test_no_number_of_prompts_helps_where_the_seeds_disagree():
    rng = np.random.default_rng(0)
    seeds = np.array([[-1.0, 0.2, 1.0]])
    assert significance.prompts_needed(seeds + 0.1 * rng.normal(size=(50, 3))) == math.inf


def test_prompts_needed_gives_the_power_it_promises():
    rng = np.random.default_rng(1)
    needed = int(significance.prompts_needed(rng.normal(0.3, 1.0, size=100_000)))
    assert needed == pytest.approx(7.85 / 0.09, rel=0.1)
    hits = [significance.p_value(rng.normal(0.3, 1.0, size=needed)) < 0.05 for _ in range(2000)]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "sd_seed"), [(3, 0.0), (3, 0.03), (5, 0.05)])
def test_prompts_needed_gives_its_power_with_several_seeds(seeds, sd_seed):
    """A mean of 0.3, prompts of sd 1 and a rest of sd 1; the seeds' own effect of this sd."""
    rng = np.random.default_rng(2)
    true = significance.TwoWayComponents(1.0, sd_seed**2, 1.0, seeds)
    needed = next(n for n in range(2, 10_000) if significance._power(n, 0.3, true) >= 0.8)

    def table():
        sizes = ((needed, 1), (1, seeds), (needed, seeds))
        return 0.3 + sum(sd * rng.normal(size=size) for sd, size in zip((1.0, sd_seed, 1.0), sizes))

    hits = [significance.p_value(table()) < 0.05 for _ in range(1000)]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.04)


def test_prompts_needed_reads_the_components_off_the_table():
    rng = np.random.default_rng(3)
    table = 0.3 + rng.normal(size=(200_000, 1)) + rng.normal(size=(200_000, 3))
    true = significance.TwoWayComponents(1.0, 0.0, 1.0, 3)
    needed = next(n for n in range(2, 10_000) if significance._power(n, 0.3, true) >= 0.8)
    assert significance.prompts_needed(table) == pytest.approx(needed, rel=0.1)
