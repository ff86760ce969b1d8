"""Intervals: small cases by hand, known formulas, and coverage by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from dlma.statistics import intervals as s


def test_the_mean_interval_is_students_t():
    values = [2.0, 4.0, 9.0]  # mean 5, sd sqrt(13), t[2] = 4.30265
    got = s.mean_interval(values)
    assert (got.value, got.n, got.seeds) == (5.0, 3, 1)
    assert got.high - 5.0 == pytest.approx(4.302653 * math.sqrt(13 / 3), rel=1e-6)
    assert got.low + got.high == pytest.approx(10.0)
    low, high = stats.t.interval(0.95, 2, loc=5.0, scale=stats.sem(values))
    assert (got.low, got.high) == (pytest.approx(low), pytest.approx(high))


def test_one_value_has_no_interval():
    got = s.mean_interval([3.0])
    assert got.value == 3.0 and math.isnan(got.low) and math.isnan(got.high)


@pytest.mark.parametrize("hits, n", [(0, 20), (1, 20), (361, 1000), (20, 20)])
def test_the_share_interval_is_wilsons(hits, n):
    want = stats.binomtest(hits, n).proportion_ci(method="wilson")
    got = s.share_interval([True] * hits + [False] * (n - hits))
    assert got.value == hits / n
    assert (got.low, got.high) == (pytest.approx(want.low, abs=1e-12), pytest.approx(want.high))


def test_a_share_refuses_what_is_neither_true_nor_false():
    with pytest.raises(ValueError, match="true and false"):
        s.share_interval([0.5, 1.0])


def test_fractions_that_are_all_zero_are_not_certain():
    got = s.fraction_interval([0.0] * 100)
    assert got.low == 0.0 and got.high == pytest.approx(0.03699, abs=1e-5)  # Wilson: z2 / (n + z2)
    table = s.crossed_fraction(np.zeros((100, 3)))
    assert (table.high, table.n, table.seeds) == (got.high, 100, 3)


def test_fractions_stay_inside_their_bounds():
    got = s.fraction_interval([0.0, 0.0, 0.0, 0.9])
    assert got.low == 0.0 and 0.225 < got.high <= 1.0


def test_a_ratio_weighs_by_the_denominator_and_a_constant_rate_is_certain():
    got = s.ratio_interval([2.0, 8.0], [1.0, 4.0])
    assert got.value == 2.0 and got.low == pytest.approx(2.0) and got.high == pytest.approx(2.0)
    # 10 / 4; residuals / mean denominator: (1 - 2.5) / 2, (9 - 7.5) / 2 = -0.75, 0.75; t[1] = 12.7062
    wide = s.ratio_interval([1.0, 9.0], [1.0, 3.0])
    assert wide.value == 2.5
    assert wide.high - 2.5 == pytest.approx(12.7062047 * 0.75, rel=1e-6)


def test_what_each_prompt_adds_to_a_ratio_is_its_derivative():
    """n times the change of the ratio as a prompt's weight in both sums grows; of any shape, with mean 0."""
    values, weights = np.array([[3.0, 1.0], [2.0, 8.0]]), np.array([[1.0, 2.0], [4.0, 3.0]])
    ratio, parts = s.linearised_ratio(values, weights)
    assert ratio == 14 / 10 and parts.mean() == pytest.approx(0)
    for place in np.ndindex(values.shape):
        more = np.ones_like(values)
        more[place] += 1e-6
        moved = (values * more).sum() / (weights * more).sum()
        assert parts[place] == pytest.approx(values.size * (moved - ratio) / 1e-6, rel=1e-4)


def test_perplexity_bounds_are_exponentials():
    got = s.exponential(s.Estimate(0.0, -math.log(2), math.log(3), 7))
    assert (got.value, got.low, got.high, got.n) == (1.0, pytest.approx(0.5), pytest.approx(3.0), 7)


def test_mean_squares_of_a_small_table_by_hand():
    # row means 2 and 6, column means 3 and 5, grand 4: 2 (4 + 4) / 1, 2 (1 + 1) / 1, nothing left
    assert s.mean_squares(np.array([[1.0, 3.0], [5.0, 7.0]])) == (16.0, 4.0, 0.0)
    prompts, seeds, error = s.mean_squares(np.array([[1.0, 3.0], [5.0, 8.0]]))
    assert (prompts, seeds, error) == (20.25, 6.25, 0.25)


def test_the_crossed_interval_of_a_small_table_by_hand():
    # half^2 = (t1^2 6.25 + t1^2 (20.25 - 0.25)) / 4 with t1 = 12.7062
    got = s.crossed_interval([[1.0, 3.0], [5.0, 8.0]])
    assert (got.value, got.n, got.seeds) == (4.25, 2, 2)
    assert got.high - got.value == pytest.approx(12.7062047 * math.sqrt(26.25 / 4), rel=1e-6)


def test_a_seed_effect_widens_and_none_falls_back_to_the_prompts():
    prompts = np.repeat(np.arange(200.0)[:, None], 3, axis=1)
    alone = s.mean_interval(prompts[:, 0])
    same = s.crossed_interval(prompts)
    assert (same.low, same.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    moved = s.crossed_interval(prompts + np.array([-5.0, 0.0, 5.0]))
    # seed part: t[2]^2 MS_seed / (n k) with MS_seed = 200 * 50 / 2 = 5000
    want = math.hypot(alone.high - alone.value, 4.302653 * math.sqrt(5000 / 600))
    assert moved.high - moved.value == pytest.approx(want, rel=1e-6)


def test_one_seed_is_the_interval_for_this_seed():
    column = np.array([[1.0], [2.0], [6.0]])
    assert s.crossed_interval(column) == s.mean_interval([1.0, 2.0, 6.0])


def test_a_crossed_ratio_with_equal_weights_is_the_crossed_mean():
    table = np.random.default_rng(0).normal(size=(20, 3))
    got, want = s.crossed_ratio(table, np.ones((20, 3))), s.crossed_interval(table)
    assert (got.value, got.low, got.high) == pytest.approx((want.value, want.low, want.high))


def test_pairing_removes_what_both_share():
    shared = np.random.default_rng(0).normal(0, 10, (300, 1))
    noise = np.random.default_rng(1).normal(0, 0.1, (300, 3))
    got = s.paired_difference(shared + noise + 1.0, np.repeat(shared, 3, axis=1))
    assert got.low < 1.0 < got.high and got.high - got.low < 0.2
    with pytest.raises(ValueError, match="shape"):
        s.paired_difference([1.0, 2.0], [1.0])


def test_bad_samples_are_refused():
    for bad in ([], [1.0, math.nan], [[1.0]]):
        with pytest.raises(ValueError):
            s.mean_interval(bad)
    for above, below in (([1.0, 2.0], [0.0, 0.0]), ([1.0, 2.0], [3.0, -1.0]), ([1.0, 2.0], [1.0])):
        with pytest.raises(ValueError, match="denominators"):
            s.ratio_interval(above, below)
    for outside in (-0.1, 1.1):
        with pytest.raises(ValueError, match="outside"):
            s.fraction_interval([0.5, outside])


@pytest.mark.parametrize("seed", range(3))
def test_a_crossed_fraction_is_the_crossed_interval_kept_inside_0_and_1(seed):
    rng = np.random.default_rng(seed)
    table = (rng.random((12, 3)) < [0.02, 0.5, 0.98][seed]).astype(float)
    table[0], table[1] = (0.0, 1.0, 0.0), (1.0, 0.0, 1.0)
    free, kept = s.crossed_interval(table), s.crossed_fraction(table)
    assert (kept.low, kept.high) == (max(0.0, free.low), min(1.0, free.high))
    assert (kept.value, kept.n, kept.seeds) == (free.value, 12, 3)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0, 4.0, 20.0])
def test_crossed_coverage_is_at_least_93_percent(seeds, ratio):
    """`ratio`: the variance that seeds add to the mean over that which the prompts and the residual add."""
    rng, n, trials = np.random.default_rng(int(100 * ratio) + seeds), 120, 1500
    prompt_sd, noise_sd = math.sqrt(0.5), math.sqrt(0.5)
    seed_sd = math.sqrt(seeds * ratio * (0.5 / n + 0.5 / (n * seeds)))
    covered = 0
    for _ in range(trials):
        table = rng.normal(0, noise_sd, (n, seeds)) + rng.normal(0, prompt_sd, (n, 1))
        got = s.crossed_interval(table + rng.normal(0, seed_sd, (1, seeds)))
        covered += got.low <= 0 <= got.high
    assert covered / trials >= 0.93


def test_crossed_coverage_at_a_thousand_prompts_with_binary_answers():
    rng, trials, covered = np.random.default_rng(3), 400, 0
    for _ in range(trials):
        logit = rng.normal(0, 1.5, (1000, 1)) + rng.normal(0, 0.2, (1, 3))
        got = s.crossed_fraction(rng.random((1000, 3)) < 1 / (1 + np.exp(-logit)))
        covered += got.low <= 0.5 <= got.high  # symmetric about 0, so the true share is a half
    assert covered / trials >= 0.93


def test_ratio_coverage_with_answers_of_uneven_length():
    rng, trials, covered = np.random.default_rng(4), 1500, 0
    for _ in range(trials):
        tokens = rng.integers(5, 60, 200)
        got = s.ratio_interval(tokens * 1.5 + rng.normal(0, 1, 200) * np.sqrt(tokens), tokens)
        covered += got.low <= 1.5 <= got.high
    assert covered / trials >= 0.93


def test_an_exponential_beyond_any_number_is_infinite():
    got = s.exponential(s.Estimate(800.0, 1.0, 1e6, 7))
    assert (got.value, got.low, got.high) == (math.inf, pytest.approx(math.e), math.inf)
