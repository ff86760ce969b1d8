"""Laws of the self-reward: a difference, odd under both swaps, and the divergence of the best of n by enumeration."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlma.functional.reward import answer_reward, best_of_n_divergence, expected_points, self_reward_margin

logp = st.floats(-200, 0, width=32)


def test_by_hand():
    pp, pn, np, nn = map(torch.tensor, ([-3.0, -1.0], [-5.0, -1.0], [-4.0, -2.0], [-4.5, -7.0]))
    assert answer_reward(pp, pn).tolist() == [2.0, 0.0]
    assert self_reward_margin(pp, pn, np, nn).tolist() == [1.5, -5.0]


@given(st.lists(st.tuples(logp, logp, logp, logp), min_size=1, max_size=4))
def test_swapping_the_answers_or_the_prompts_changes_the_sign(rows):
    pp, pn, np, nn = torch.tensor(rows).unbind(1)
    margin = self_reward_margin(pp, pn, np, nn)
    torch.testing.assert_close(self_reward_margin(np, nn, pp, pn), -margin)
    torch.testing.assert_close(self_reward_margin(pn, pp, nn, np), -margin)
    assert (self_reward_margin(pp, pp, np, np) == 0).all()  # one prompt twice says nothing


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_divergence_of_the_best_of_n_bounds_that_of_an_enumeration(n):
    """A base of eight answers, one reward each: the bound is reached where no answer has much of the probability."""
    base = [1 / 8] * 8
    best = [0.0] * 8
    for drawn in product(range(8), repeat=n):
        best[max(drawn)] += math.prod(base[i] for i in drawn)
    true = sum(p * math.log(p / q) for p, q in zip(best, base) if p)
    assert true <= best_of_n_divergence(n) + 1e-12
    assert best_of_n_divergence(n) - true < 0.12 and (n > 1 or true == best_of_n_divergence(1) == 0)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_best_of_n_diverges_by_the_integral_of_its_density(n):
    """With u uniform the best of n has density n u^(n-1): KL = integral of n u^(n-1) log(n u^(n-1)) du."""
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    density = n * u ** (n - 1)
    assert best_of_n_divergence(n) == pytest.approx((density * density.log()).mean().item(), abs=1e-4)


def test_expected_points_by_hand():
    """Chances 1/8, 1/8, 1/4 of 0, 1, 2 points: (1/8 + 1/2) / (1/2) = 1.25; a common factor changes nothing."""
    logp = torch.tensor([[0.125, 0.125, 0.25], [0.5, 0.0, 0.5]], dtype=torch.float64).log()
    assert expected_points(logp).tolist() == pytest.approx([1.25, 1.0])
    assert expected_points(logp - 7.0).tolist() == pytest.approx([1.25, 1.0])
