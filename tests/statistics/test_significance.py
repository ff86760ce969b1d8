"""Tests between methods: against scipy where it has them, against enumeration, and dual to the intervals."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from dlma.statistics import significance
from dlma.statistics.intervals import Beside, Estimate, crossed_half, crossed_interval, mean_interval, with_exact_bounds


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
    assert math.isnan(significance.p_value([0.3]))
    with pytest.raises(ValueError, match="finite"):
        significance.p_value([0.1, math.nan])


@pytest.mark.parametrize("prompts", [2, 3, 5, 6, 40])
@pytest.mark.parametrize("seeds", [1, 3])
def test_prompts_that_all_differ_alike_are_tested_by_their_signs_and_the_interval_agrees(prompts, seeds):
    """Of n signs p is 2 / 2^n; the exact bounds leave 0 out from 6 prompts on, as p falls below 0.05 there."""
    table = np.ones((prompts, seeds))
    p = significance.p_value(table)
    e = with_exact_bounds(crossed_interval(table), table, 1.0)
    assert p == pytest.approx(stats.binomtest(prompts, prompts).pvalue)
    assert (e.low > 0) == (p < 0.05) and e.high == 1.0
    assert e.low == pytest.approx(2 * stats.binomtest(prompts, prompts).proportion_ci(0.95, "exact").low - 1)


def test_a_further_error_of_nothing_changes_nothing_where_all_prompts_differ_alike():
    assert significance.p_value(np.ones(4), Beside(sd=0.0, df=2.0)) == significance.p_value(np.ones(4)) == 0.125


def test_no_difference_at_all_is_no_certainty_that_there_is_none():
    zeros = np.zeros(5)
    e = with_exact_bounds(mean_interval(zeros), zeros, 1.0)
    share = stats.binomtest(0, 5).proportion_ci(0.95, "exact").high
    assert (e.low, e.high) == (pytest.approx(-share), pytest.approx(share)) and significance.p_value(zeros) == 1.0
    assert significance.shown_within(e, 0.03) is None
    assert with_exact_bounds(mean_interval(zeros), zeros, None) == mean_interval(zeros)


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


def test_two_one_sided_tests_by_hand_and_against_two_calls_of_scipys():
    """Margin 0.03: inside, across an end, beyond it, touching it."""
    cases = [((-0.02, 0.029), True), ((-0.01, 0.04), None), ((0.03, 0.05), False), ((-0.09, -0.04), False)]
    cases += [((-0.03, 0.01), None), ((-0.05, 0.05), None), ((math.nan, math.nan), None)]
    for (low, high), said in cases:
        assert significance.shown_within(Estimate((low + high) / 2, low, high, 9), 0.03) is said
    rng, margin, seen = np.random.default_rng(4), 0.3, set()
    for shift in np.linspace(-0.8, 0.8, 17):
        values = rng.normal(shift, 0.4, 30)
        above, below = (
            [stats.ttest_1samp(values, edge, alternative=side).pvalue < 0.025 for side in ("greater", "less")]
            for edge in (-margin, margin)
        )
        wanted = True if above[0] and below[1] else False if above[1] or below[0] else None
        assert significance.shown_within(mean_interval(values), margin) is wanted
        seen.add(wanted)
    assert seen == {True, False, None}


@pytest.mark.parametrize(("seeds", "tables"), [(3, 1), (5, 1), (3, 14), (10, 4)])
def test_power_where_prompts_are_many_is_that_of_a_t_test_of_the_seeds(seeds, tables):
    """By the noncentral t of scipy, on tables x (seeds - 1) degrees of freedom."""
    found = significance.power(10**9, 0.03, significance.TwoWayComponents(0.0, 0.02**2, 0.0, seeds, tables))
    df, noncentral = tables * (seeds - 1), 0.03 / (0.02 / math.sqrt(seeds))
    edge = stats.t.ppf(0.975, df)
    wanted = stats.nct.sf(edge, df, noncentral) + stats.nct.cdf(-edge, df, noncentral)
    assert found == pytest.approx(wanted, abs=0.005)


def test_seeds_needed_are_the_least_that_have_the_power():
    rng = np.random.default_rng(5)
    table = 0.03 + 0.02 * np.array([[-1.0, 0.0, 1.0]]) + 0.01 * rng.normal(size=(1000, 1)) + np.zeros((1000, 3))
    needed = significance.seeds_needed(table)
    of = significance.components(table)
    powers = [significance.power(1000, table.mean(), replace(of, seeds=k)) for k in (int(needed) - 1, int(needed))]
    assert powers[0] < 0.8 <= powers[1]
    assert significance.seeds_needed(table, Beside(seed=of.seed, seed_df=28)) < needed  # many degrees of freedom
    assert math.isnan(significance.seeds_needed(table[:, :1]))
    assert significance.seeds_needed(rng.normal(0.01, 1.0, (20, 1)) + np.zeros((20, 3))) == math.inf  # prompts hide it


def test_a_further_error_makes_p_larger_until_nothing_is_told():
    values = table(k=3, shift=2.0)
    found = [significance.p_value(values, Beside(sd=sd, df=10)) for sd in (0.0, 0.3, 1.0, 5.0)]
    assert found == sorted(found) and found[0] == significance.p_value(values) and found[-1] > 0.5
    one = values[:, :1]
    assert significance.p_value(one, Beside(sd=1e-9, df=10)) == pytest.approx(significance.p_value(one), rel=1e-4)


def test_prompts_needed_is_the_text_book_number_for_one_seed():
    values = np.array([0.0, 1.0, 0.0, 1.0, 0.5, 0.5])  # mean 0.5, variance 0.2
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert significance.prompts_needed(values) == math.ceil(z**2 * 0.2 / 0.25)


@pytest.mark.parametrize("values", [[0.4], [[0.4, 0.5]], [0.0, 0.0, 0.0], [1.0, -1.0]])
def test_one_prompt_and_no_difference_are_found_by_no_number_of_prompts(values):
    assert significance.prompts_needed(values) == math.inf


def test_a_further_error_of_one_seed_asks_for_more_prompts_until_none_are_enough():
    """As many prompts as one likes leave an error of sd 0.05, t 2.228 on 10: a mean of 0.3 has power 1, 0.1 has not."""
    values = np.tile([-0.7, 1.3], 50)  # mean 0.3, variance 1.01
    needed = [significance.prompts_needed(values, Beside(sd=sd, df=10)) for sd in (1e-9, 0.05, 0.09, 0.2)]
    assert needed == sorted(needed) and needed[0] < needed[1] and needed[-1] == math.inf
    assert needed[0] == pytest.approx(significance.prompts_needed(values), abs=3)  # which takes z for t
    found = significance.power(10**9, 0.1, significance.components(values[:, None], Beside(sd=0.05, df=10)))
    half = stats.t.ppf(0.975, 10) * 0.05
    assert found == pytest.approx(stats.norm.sf(half, 0.1, 0.05) + stats.norm.cdf(-half, 0.1, 0.05), rel=1e-4)


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
    needed = next(n for n in range(2, 10_000) if significance.power(n, 0.3, true) >= 0.8)

    def table():
        sizes = ((needed, 1), (1, seeds), (needed, seeds))
        return 0.3 + sum(sd * rng.normal(size=size) for sd, size in zip((1.0, sd_seed, 1.0), sizes))

    hits = [significance.p_value(table()) < 0.05 for _ in range(1000)]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.04)


def test_prompts_needed_reads_the_components_off_the_table():
    rng = np.random.default_rng(3)
    table = 0.3 + rng.normal(size=(200_000, 1)) + rng.normal(size=(200_000, 3))
    true = significance.TwoWayComponents(1.0, 0.0, 1.0, 3)
    needed = next(n for n in range(2, 10_000) if significance.power(n, 0.3, true) >= 0.8)
    assert significance.prompts_needed(table) == pytest.approx(needed, rel=0.1)
