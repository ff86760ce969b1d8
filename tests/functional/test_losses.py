"""The pair losses and the divergence, held against values derived by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlma.functional.losses import (
    chunked_divergence,
    divergence,
    ipo_loss,
    log_offset,
    margin_weights,
    reward_distillation_loss,
    soft_label_loss,
)
from dlma.functional.preference import preference_logit, sigmoid_loss

number = st.floats(-30, 30, allow_nan=False)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def logit(h, margin, *, beta, margin_weight):
    return preference_logit(tensor(h), tensor(0.0), tensor(margin), beta=beta, margin_weight=margin_weight)


@given(number)
def test_a_certain_label_is_the_sigmoid_loss(z):
    assert torch.equal(soft_label_loss(tensor(z), 1.0), sigmoid_loss(tensor(z)))


@given(number, st.floats(0, 0.49))
def test_conservative_dpo_by_its_equation(z, epsilon):
    """-(1 - e) log sigmoid(z) - e log sigmoid(-z)."""
    log_sigmoid = torch.nn.functional.logsigmoid
    by_hand = -(1 - epsilon) * log_sigmoid(tensor(z)) - epsilon * log_sigmoid(tensor(-z))
    assert soft_label_loss(tensor(z), 1 - epsilon).item() == pytest.approx(by_hand.item(), rel=1e-9, abs=1e-9)


@given(st.floats(0.01, 0.99))
def test_a_soft_label_is_least_where_the_policy_states_it(label):
    """d/dz = sigmoid(z) - s, so the minimum is at sigmoid(z) = s: with s = sigmoid(R/tau), beta*h = R/tau."""
    z = torch.tensor([math.log(label / (1 - label))], dtype=torch.float64, requires_grad=True)
    soft_label_loss(z, label).sum().backward()
    assert abs(z.grad.item()) < 1e-12


@given(number, st.floats(0.05, 5))
def test_ipo_without_margin_is_the_published_square(h, beta):
    ours = ipo_loss(logit(h, 9.0, beta=beta, margin_weight=0.0), beta=beta)
    assert ours.item() == pytest.approx((h - 1 / (2 * beta)) ** 2, rel=1e-6, abs=1e-6)


def test_ipo_with_a_margin_moves_its_target_by_the_margin():
    """beta 0.5, weight 0.25, R 4: the target of h is 1/(2*0.5) + 0.25*4/0.5 = 3, so at h = 5 the loss is 4."""
    assert ipo_loss(logit(5.0, 4.0, beta=0.5, margin_weight=0.25), beta=0.5).item() == pytest.approx(4.0)


def test_ipo_without_beta_is_refused():
    with pytest.raises(ValueError, match="beta"):
        ipo_loss(tensor(1.0), beta=0.0)


def test_reward_distillation_by_hand():
    """(0.5*3 - 0.25*2)^2 = 1; and it is 0 where beta*h = beta1*R."""
    assert reward_distillation_loss(logit(3.0, 2.0, beta=0.5, margin_weight=0.25)).item() == 1.0
    assert reward_distillation_loss(logit(1.0, 2.0, beta=0.5, margin_weight=0.25)).item() == 0.0


def test_weights_are_clamped_margins_of_mean_one():
    """R = -3, 1, 9 with U = 5: 0, 1, 5 over their mean 2."""
    assert margin_weights(tensor(-3.0, 1.0, 9.0), high=5.0).tolist() == [0.0, 0.5, 2.5]


def test_no_positive_margin_leaves_nothing_to_weigh():
    with pytest.raises(ValueError, match="above 0"):
        margin_weights(tensor(-1.0, 0.0), high=4.0)


def test_the_divergence_by_hand():
    """Coins of 3/4 and 1/2: 3/4 ln(3/2) + 1/4 ln(1/2)."""
    first, second = tensor(3.0, 1.0).log().unsqueeze(0), tensor(1.0, 1.0).unsqueeze(0)
    by_hand = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert divergence(first, second).item() == pytest.approx(by_hand, rel=1e-6)
    assert divergence(second, second).item() == 0


def heads(seed):
    draw = torch.Generator().manual_seed(seed)
    weights = [torch.randn(11, width, generator=draw) for width in (4, 6)]
    states = [torch.randn(9, width, generator=draw) for width in (4, 6)]
    return weights, states


@pytest.mark.parametrize("chunk", [1, 4, 9, 100])
def test_chunks_change_neither_the_divergence_nor_its_gradient(chunk):
    weights, states = heads(0)
    whole = states[0].clone().requires_grad_()
    divergence(whole @ weights[0].T, states[1] @ weights[1].T).sum().backward()
    cut = states[0].clone().requires_grad_()
    each = chunked_divergence(cut, states[1], lambda s: s @ weights[0].T, lambda s: s @ weights[1].T, chunk)
    each.sum().backward()
    assert each.shape == (9,)
    assert torch.allclose(cut.grad, whole.grad, atol=1e-6)
    log_p, log_q = ((s @ w.T).log_softmax(-1) for s, w in zip(states, weights, strict=True))
    assert torch.allclose(each.detach(), (log_p.exp() * (log_p - log_q)).sum(-1), atol=1e-6)
    with torch.no_grad():
        scored = chunked_divergence(*states, lambda s: s @ weights[0].T, lambda s: s @ weights[1].T, chunk)
    assert torch.equal(scored, each)


@given(st.floats(0.01, 50), st.floats(0, 3))
def test_the_loss_with_a_log_offset_has_odpos_closed_form(score, alpha):
    """-log sigmoid(z - alpha log d) = log(1 + d^alpha exp(-z)): the labels' odds are those of d to the alpha."""
    z = 0.3
    ours = sigmoid_loss(tensor(z) - log_offset(tensor(score), alpha=alpha)).item()
    assert ours == pytest.approx(math.log1p(score**alpha * math.exp(-z)), rel=1e-9)


@pytest.mark.parametrize("score", [0.0, -1.0])
def test_there_is_no_log_offset_without_a_difference(score):
    with pytest.raises(ValueError, match="larger score"):
        log_offset(tensor(1.0, score), alpha=1.0)


def test_margins_may_be_as_small_as_they_like_if_one_is_above_0():
    assert margin_weights(tensor(0.25, -1.0), high=5.0).tolist() == [2.0, 0.0]
