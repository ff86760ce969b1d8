"""The margin loss, held against values derived by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlma.functional.preference import margin_bounds, preference_logit, sigmoid_loss
from dlma.functional.reward import self_reward_margin

number = st.floats(-50, 50, allow_nan=False)
weight = st.floats(0, 5, allow_nan=False)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_worked_example():
    """beta*(4-1) - 0.25*clamp(6, -4, 4) = 1.5 - 1 = 0.5; -log sigmoid(0.5) = log(1 + e^-0.5) = 0.474077."""
    margin = tensor(6.0).clamp(-4, 4)
    logit = preference_logit(tensor(4.0), tensor(1.0), margin, beta=0.5, margin_weight=0.25)
    assert logit.item() == 0.5
    assert sigmoid_loss(logit).item() == pytest.approx(0.47408, abs=5e-6)


@given(number, number, number, weight)
def test_margin_zero_is_plain_dpo(policy, reference, margin, beta):
    ours = sigmoid_loss(
        preference_logit(tensor(policy), tensor(reference), tensor(margin), beta=beta, margin_weight=0.0)
    )
    plain = -torch.nn.functional.logsigmoid(beta * (tensor(policy) - tensor(reference)))
    assert torch.equal(ours, plain) or torch.allclose(ours, plain, rtol=1e-12)


@given(number, number, number, st.floats(0.01, 2), weight)
def test_the_official_form_is_ours_at_margin_weight_beta_times_w(policy, reference, margin, beta, w):
    official = beta * (policy - reference - w * margin)
    ours = preference_logit(tensor(policy), tensor(reference), tensor(margin), beta=beta, margin_weight=beta * w)
    assert ours.item() == pytest.approx(official, rel=1e-9, abs=1e-9)


@given(number, weight)
def test_the_loss_of_a_policy_that_equals_its_reference_has_a_closed_form(margin, margin_weight):
    """softplus(margin_weight * R), which is ln 2 without a margin."""
    logit = preference_logit(tensor(3.0), tensor(3.0), tensor(margin), beta=0.7, margin_weight=margin_weight)
    wanted = math.log1p(math.exp(-abs(margin_weight * margin))) + max(0.0, margin_weight * margin)
    assert sigmoid_loss(logit).item() == pytest.approx(wanted, rel=1e-9)


def test_a_negative_margin_weakens_a_pair_and_keeps_its_label():
    """At equal gaps the gradient's size is sigmoid(margin_weight*R): below 1/2 for R < 0, above for R > 0."""
    gap = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    logit = preference_logit(gap, tensor(0.0, 0.0), tensor(-2.0, 2.0), beta=1.0, margin_weight=1.0)
    sigmoid_loss(logit).sum().backward()
    assert gap.grad.tolist() == pytest.approx([-1 / (1 + math.e**2), -1 / (1 + math.e**-2)])


def test_margin_bounds_in_each_unit():
    """R = 0, 2, 4: population sd is sqrt(8/3); its 0.25 and 0.75 quantiles are 1 and 3."""
    margin = tensor(0.0, 2.0, 4.0)
    assert margin_bounds(margin, -40, 40, "nats") == (-40, 40)
    assert margin_bounds(margin, -1, 2, "sd") == pytest.approx((-math.sqrt(8 / 3), 2 * math.sqrt(8 / 3)))
    assert margin_bounds(margin, 0.25, 0.75, "quantile") == pytest.approx((1, 3))


@pytest.mark.parametrize(("low", "high", "unit"), [(1, 0, "nats"), (0, 1, "bits")])
def test_impossible_bounds_are_refused(low, high, unit):
    with pytest.raises(ValueError, match="margin_"):
        margin_bounds(tensor(1.0), low, high, unit)


@given(number, number, number, number)
def test_the_self_reward_changes_sign_when_answers_or_prompts_are_swapped(pp, pn, np, nn):
    margin = self_reward_margin(*(tensor(v) for v in (pp, pn, np, nn)))
    answers_swapped = self_reward_margin(*(tensor(v) for v in (np, nn, pp, pn)))
    prompts_swapped = self_reward_margin(*(tensor(v) for v in (pn, pp, nn, np)))
    assert answers_swapped.item() == -margin.item()
    assert prompts_swapped.item() == -margin.item()


def test_the_self_reward_by_hand():
    """(-10 - -14) - (-20 - -18) = 4 - (-2) = 6."""
    assert self_reward_margin(*(tensor(v) for v in (-10.0, -14.0, -20.0, -18.0))).item() == 6


def test_bounds_that_meet_are_no_mistake():
    assert margin_bounds(tensor(1.0, 2.0), 3.0, 3.0, "nats") == (3.0, 3.0)
