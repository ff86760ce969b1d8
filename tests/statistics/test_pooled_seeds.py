"""The seeds' variance pooled over comparisons: by hand, unbiased, and on its level where methods are moved alike."""

import numpy as np
import pytest

from dlma.statistics import intervals
from dlma.statistics.pooled_seeds import pooled


def test_two_comparisons_over_two_seeds_by_hand():
    """Means 0, 0 | 1, 3 | 2, 2 for the baseline and both: the two-way residuals are +-1/3, +-2/3, +-1/3."""
    tables = [np.array([[1.0, 3.0], [1.0, 3.0]]), np.array([[2.0, 2.0], [2.0, 2.0]])]
    found = pooled(tables)
    assert found.seed_df == 2
    assert found.seed == pytest.approx(2 * 2 * (1 / 9 + 4 / 9 + 1 / 9) / 2)


def test_of_one_comparison_or_one_seed_nothing_is_pooled():
    assert pooled([np.ones((3, 2))]) == intervals.ALONE
    assert pooled([np.ones((3, 1)), np.zeros((3, 1))]) == intervals.ALONE


def test_what_a_seed_does_to_all_methods_is_in_no_difference():
    rng = np.random.default_rng(0)
    methods, shift = rng.normal(size=(3, 5, 3)), rng.normal(size=(1, 1, 3))
    both = [pooled([m[1] - m[0], m[2] - m[0]]).seed for m in (methods, methods + shift)]
    assert both[0] == pytest.approx(both[1])
    alone = pooled([methods[1] - methods[0] + shift[0], methods[2] - methods[0] + shift[0]]).seed
    assert alone != pytest.approx(both[0])  # the baseline's own part counts


def test_the_pooled_variance_is_that_of_a_difference():
    """Methods with a seed effect of variance 0.09 each: a difference has 0.18, whatever the seed does to all."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(2000):
        methods = rng.normal(0, 0.3, (5, 1, 3)) + rng.normal(0, 5.0, (1, 1, 3))
        found.append(pooled([methods[i] - methods[0] for i in range(1, 5)]).seed)
    assert np.mean(found) == pytest.approx(0.18, rel=0.03)


def test_the_interval_takes_the_pooled_variance_and_a_further_error():
    """Each with its own t: 2.776 on 4 degrees of freedom, 12.71 on 1; the prompts add nothing here."""
    table = np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    half = intervals.crossed_half(table, 0.025, intervals.Beside(seed=0.3, seed_df=4, sd=0.1, df=1))
    assert half == pytest.approx(np.sqrt(2.776445**2 * 0.3 / 3 + 12.706205**2 * 0.01), rel=1e-6)
    one = intervals.crossed_interval([[1.0], [1.0]], intervals.Beside(sd=0.1, df=1))
    assert (one.low, one.high) == (pytest.approx(1 - 1.2706205), pytest.approx(1 + 1.2706205))
