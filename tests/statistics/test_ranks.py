"""Against scipy, bit by bit: reports must not change in a digit because of who counts."""

import math

import numpy as np
import pytest
from scipy import stats

from dlma.statistics.ranks import rank_correlation, ranks


def test_by_hand():
    assert ranks([30, 10, 20, 20]).tolist() == [4, 1, 2.5, 2.5]
    assert rank_correlation([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)  # 1 - 6 * (0 + 1 + 1) / (3 * 8)
    assert rank_correlation([1, 2, 3], [3.0, 2.0, 1.0]) == pytest.approx(-1)


@pytest.mark.parametrize("distinct", [2, 5, 10**6])
@pytest.mark.parametrize("n", [4, 60, 1001])
def test_the_same_bits_as_scipy_with_ties_and_without(n, distinct):
    random = np.random.default_rng(n)
    for _ in range(20):
        one, other = random.integers(0, distinct, (2, n)) / 7
        one[0], other[0] = -1, -2  # each varies
        assert (ranks(one) == stats.rankdata(one)).all()
        assert rank_correlation(one, other) == stats.spearmanr(one, other).statistic


def test_what_does_not_vary_has_no_correlation():
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))
