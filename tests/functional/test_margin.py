"""Margins per token, and the two controls."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlma.functional.margin import constant, per_token_margin, shuffled, token_weights
from dlma.functional.reward import best_of_n_divergence

margins = st.lists(st.floats(-9, 9, allow_nan=False), min_size=1, max_size=20)


def test_each_log_ratio_is_divided_by_its_own_length():
    """6/3 - (-4)/2 = 4; and 6/6 - 4/1 = -3."""
    rewards, lengths = torch.tensor([[6.0, -4.0], [6.0, 4.0]]), torch.tensor([[3, 2], [6, 1]])
    assert per_token_margin(rewards, lengths).tolist() == [4.0, -3.0]


def test_an_empty_answer_has_no_margin_per_token():
    with pytest.raises(ValueError, match="no token"):
        per_token_margin(torch.tensor([[1.0, 1.0]]), torch.tensor([[0, 2]]))


def test_token_weights_by_hand():
    """k 2, mu 1, clamped to -0.5 and 1.5: 2 exp(-0.5), 2, 2 exp(1.5); rejected, the signs of the exponents turn."""
    rewards = torch.tensor([-3.0, 0.0, 9.0], dtype=torch.float64)
    settings = dict(k=2.0, low=-0.5, high=1.5)
    exponents = torch.tensor([-0.5, 0.0, 1.5], dtype=torch.float64)
    assert torch.allclose(token_weights(rewards, mu=1.0, **settings), 2 * exponents.exp())
    assert torch.allclose(token_weights(rewards, mu=-1.0, **settings), 2 * (-exponents).exp())
    assert token_weights(rewards, mu=0.0, **settings).tolist() == [2.0, 2.0, 2.0]


@given(margins, st.integers(0, 99))
def test_shuffling_keeps_the_values_and_depends_on_the_seed_alone(values, seed):
    margin = torch.tensor(values)
    once, again = shuffled(margin, seed=seed), shuffled(margin, seed=seed)
    assert torch.equal(once, again)
    assert sorted(once.tolist()) == sorted(margin.tolist())


def test_shuffling_moves_the_values():
    margin = torch.arange(50.0)
    assert (shuffled(margin, seed=0) != margin).float().mean() > 0.8
    assert not torch.equal(shuffled(margin, seed=0), shuffled(margin, seed=1))


def test_constant_is_the_mean_everywhere():
    assert constant(torch.tensor([1.0, -2.0, 4.0])).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_best_of_n_diverges_by_the_integral_of_its_density(n):
    """With u uniform the best of n has density n u^(n-1): KL = integral of n u^(n-1) log(n u^(n-1)) du."""
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    density = n * u ** (n - 1)
    assert best_of_n_divergence(n) == pytest.approx((density * density.log()).mean().item(), abs=1e-4)
