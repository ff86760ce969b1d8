"""PPO's formulas: by hand, and against a plain loop over one answer at a time."""

import math

import pytest
import torch

from dlma.functional.ppo import advantages, policy_losses, token_rewards, value_losses, whitened

MASK = torch.tensor([[True, True, True], [True, False, False]])


def test_the_score_comes_with_the_last_token_and_the_kl_with_each():
    logp = torch.tensor([[-1.0, -2.0, -3.0], [-0.5, 9.0, 9.0]])
    reference = torch.tensor([[-1.5, -2.0, -1.0], [-1.0, -9.0, 9.0]])
    found = token_rewards(torch.tensor([2.0, -1.0]), logp, reference, MASK, kl_weight=0.1)
    # first answer: -0.1 * (0.5, 0, -2), and 2 at its end; second: -0.1 * 0.5 - 1
    assert torch.allclose(found, torch.tensor([[-0.05, 0.0, 2.2], [-1.05, 0.0, 0.0]]), atol=1e-6)


def test_an_answer_without_tokens_can_carry_no_score():
    with pytest.raises(ValueError, match="no token"):
        token_rewards(torch.zeros(1), torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2).bool(), kl_weight=1.0)


def test_whitening_divides_by_the_standard_deviation_and_moves_the_mean_only_if_asked():
    values = torch.tensor([[1.0, 2.0, 3.0], [6.0, 70.0, -70.0]])
    # the four counted values 1, 2, 3, 6: mean 3, squared distances 4 + 1 + 0 + 9, over n - 1: 14/3
    sd = math.sqrt(14 / 3)
    kept = whitened(values, MASK, shift_mean=False)
    assert torch.allclose(kept, torch.tensor([[3 - 2 / sd, 3 - 1 / sd, 3.0], [3 + 3 / sd, 0.0, 0.0]]), atol=1e-5)
    moved = whitened(values, MASK, shift_mean=True)
    assert torch.allclose(moved, torch.tensor([[-2 / sd, -1 / sd, 0.0], [3 / sd, 0.0, 0.0]]), atol=1e-5)
    assert kept[MASK].mean().item() == pytest.approx(3.0) and kept[MASK].std().item() == pytest.approx(1.0)


def test_whitening_one_value_is_refused():
    with pytest.raises(ValueError, match="two values"):
        whitened(torch.ones(1, 2), torch.tensor([[True, False]]), shift_mean=True)


def test_advantages_by_hand():
    rewards, values = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.2]])
    # d2 = 2 - 0.2 = 1.8; d1 = 1 + 0.9 * 0.2 - 0.5 = 0.68; A1 = 0.68 + 0.9 * 0.5 * 1.8
    found = advantages(rewards, values, torch.ones(1, 2).bool(), gamma=0.9, lam=0.5)
    assert found[0].tolist() == pytest.approx([1.49, 1.8])


def test_advantages_are_the_definition_as_a_sum_and_see_nothing_behind_an_answers_end():
    draw = torch.Generator().manual_seed(0)
    lengths, gamma, lam = [4, 1, 3], 0.97, 0.9
    rewards, values = (torch.randn(3, 4, generator=draw) for _ in range(2))
    mask = torch.arange(4) < torch.tensor(lengths).unsqueeze(1)
    found = advantages(rewards, values, mask, gamma=gamma, lam=lam)
    for row, n in enumerate(lengths):
        after = [*values[row, 1:n].tolist(), 0.0]
        delta = [rewards[row, t].item() + gamma * after[t] - values[row, t].item() for t in range(n)]
        for t in range(n):
            wanted = sum((gamma * lam) ** k * delta[t + k] for k in range(n - t))
            assert found[row, t].item() == pytest.approx(wanted, abs=1e-5)
        assert found[row, n:].abs().sum() == 0


def test_with_lambda_and_gamma_1_an_advantage_is_what_is_still_to_come_less_the_value():
    rewards, values = torch.tensor([[1.0, -2.0, 4.0]]), torch.tensor([[0.5, 7.0, -1.0]])
    found = advantages(rewards, values, torch.ones(1, 3).bool(), gamma=1.0, lam=1.0)
    assert found[0].tolist() == pytest.approx([3 - 0.5, 2 - 7, 4 + 1])


@pytest.mark.parametrize(
    ("ratio", "advantage", "wanted", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.5, 2.0, -2.4, 0.0),  # clipped at 1.2: no reason to go further
        (0.5, 2.0, -1.0, -1.0),  # too unlikely a good token: not clipped
        (0.5, -2.0, 1.6, 0.0),  # clipped at 0.8
        (1.5, -2.0, 3.0, 3.0),  # too likely a bad token: not clipped
    ],
)
def test_the_policy_loss_and_its_slope_in_every_case_of_the_clip(ratio, advantage, wanted, slope):
    logp = torch.tensor([math.log(ratio)], requires_grad=True)
    loss = policy_losses(logp, torch.zeros(1), torch.tensor([advantage]), clip=0.2)
    loss.sum().backward()
    assert loss.item() == pytest.approx(wanted, rel=1e-6)
    assert logp.grad.item() == pytest.approx(slope, abs=1e-6)


def test_the_value_loss_is_the_larger_of_the_free_and_the_held_one():
    value, target = torch.tensor([1.0, 0.1, -1.0]), torch.tensor([2.0, 1.0, 1.0])
    found = value_losses(value, torch.zeros(3), target, clip=0.2)
    # held values 0.2, 0.1, -0.2: errors (1, 1.8), (0.9, 0.9), (2, 1.2)
    assert found.tolist() == pytest.approx([0.5 * 1.8**2, 0.5 * 0.9**2, 0.5 * 2.0**2])


def test_the_policys_loss_is_of_the_ratio_to_the_sampling_policy_by_hand():
    # ratio 0.6 / 0.5 = 1.2, held at 1.1; the larger of -2 * 1.2 and -2 * 1.1
    found = policy_losses(torch.tensor([0.6]).log(), torch.tensor([0.5]).log(), torch.tensor([2.0]), clip=0.1)
    assert found.item() == pytest.approx(-2.2)


def test_a_value_below_its_range_is_held_at_the_lower_end_by_hand():
    # held at 1 - 0.2 = 0.8: the larger of 0 and 0.64, halved
    found = value_losses(torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([0.0]), clip=0.2)
    assert found.item() == pytest.approx(0.32)


def test_one_answer_without_tokens_among_others_is_refused():
    mask = torch.tensor([[True], [False]])
    with pytest.raises(ValueError, match="no token"):
        token_rewards(torch.zeros(2), torch.zeros(2, 1), torch.zeros(2, 1), mask, kl_weight=1.0)


def test_two_values_are_enough_to_whiten_and_equal_ones_become_zeros():
    two = whitened(torch.tensor([[1.0, 3.0]]), torch.ones(1, 2).bool(), shift_mean=True)  # mean 2, sd the root of 2
    assert two[0].tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5])
    assert whitened(torch.ones(1, 3), torch.ones(1, 3).bool(), shift_mean=True)[0].tolist() == [0.0, 0.0, 0.0]


def test_the_advantage_of_an_answer_of_one_token_is_its_reward_less_its_value():
    found = advantages(torch.tensor([[2.0]]), torch.tensor([[0.5]]), torch.ones(1, 1).bool(), gamma=0.9, lam=0.5)
    assert found.tolist() == [[1.5]]
