"""Margins per token, and the two controls."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlma.functional.margin import (
    balancing_penalty,
    best_and_worst,
    constant,
    per_token_margin,
    shuffled,
    token_weights,
)

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


def test_best_and_worst_by_hand():
    """Scores 1, 3, 2, 3 with 5, 9, 4, 9 tokens: at penalty 0.5 they are -1.5, -1.5, 0, -1.5."""
    scored = ([1.0, 3.0, 2.0, 3.0], [5, 9, 4, 9])
    assert best_and_worst(scored, penalty=0.0) == (1, 0)
    assert best_and_worst(scored, penalty=0.5) == (2, 0)
    assert best_and_worst(([2.0, 2.0], [3, 3]), penalty=0.1) is None


def longer(prompts, penalty):
    """How much longer best answers are than worst ones, written out."""
    found = []
    for scores, lengths in prompts:
        shaped = [s - penalty * n for s, n in zip(scores, lengths, strict=True)]
        if max(shaped) > min(shaped):
            found.append(lengths[shaped.index(max(shaped))] - lengths[shaped.index(min(shaped))])
    return sum(found) / len(found) if found else 0.0


ANSWERS = st.lists(st.tuples(st.integers(-90, 90).map(lambda n: n / 8), st.integers(1, 30)), min_size=2, max_size=5)


@given(st.lists(ANSWERS, min_size=1, max_size=8))
def test_the_balancing_penalty_is_as_good_as_any_of_a_grid(groups):
    prompts = [tuple(map(list, zip(*group, strict=True))) for group in groups]
    penalty = balancing_penalty(prompts)
    if longer(prompts, 0.0) <= 0:
        assert penalty == 0
    else:
        grid = [k / 8 for k in range(192)]
        assert abs(longer(prompts, penalty)) <= min(abs(longer(prompts, p)) for p in grid) + 1e-9


def test_a_score_that_is_length_alone_is_balanced_by_its_rate():
    prompts = [([2.0 * n for n in lengths], lengths) for lengths in ([3, 9, 5], [8, 2], [4, 11, 20, 1])]
    assert balancing_penalty(prompts) == pytest.approx(2.0)


def test_the_penalty_is_found_where_the_mean_difference_is_less_than_a_token():
    # best is longer by 1 up to a penalty of 10, the other prompt's answers are equally long: half a token on average
    prompts = [((10.0, 0.0), (3, 2)), ((1.0, 0.0), (2, 2))]
    assert balancing_penalty(prompts) == pytest.approx(10.0)
