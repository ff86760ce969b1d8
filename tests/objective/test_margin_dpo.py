"""The loss for other people's loops: that of the training rule, on batches that are padded instead of planned."""

import dataclasses
from inspect import signature

import pytest
import torch
from scored_examples import OPTIM, OPTIONS, scored_pairs
from small_models import plain_logp, small_model

from dlma.errors import UserError
from dlma.objective.dpo import DPO
from dlma.objective.losses import Ipo, RewardDistillation, Sigmoid, SoftLabels, TargetMargin
from dlma.objective.margin_dpo import MarginDPO, PairCollator, padded_logp
from dlma.training.preference_pair import sides

NAMES = [name for name in signature(MarginDPO).parameters if name != "loss"]
CASES = {
    "margin": {},
    "sd": dict(margin_unit="sd", margin_low=-0.5, margin_high=0.5),
    "per_token": dict(per_token=True),
    "weighted": dict(weighted=True),
    "simpo": dict(per_token=True, reference_free=True, loss=TargetMargin(target_margin=0.7)),
    "nll": dict(nll_weight=0.2, loss=Ipo(beta=0.5)),
}


def loss_of(**changes):
    """The loss with the options of the training rule's tests."""
    chosen = {**OPTIONS, **changes}
    return MarginDPO(loss=chosen.get("loss", Sigmoid()), **{name: chosen[name] for name in NAMES})


def rows_of(loss, pairs):
    """Rows as the collator takes them."""
    return [
        {
            "context_ids": pair.plain_context_ids,
            "answer_ids": [getattr(pair, f"{side}_ids") for side in sides(pair)],
            "columns": columns,
        }
        for pair, columns in zip(pairs, loss.rows(pairs), strict=True)
    ]


@pytest.fixture(scope="module")
def moved():
    """Pairs of a model, half of them chosen the other way, and the model after an update."""
    model = small_model()
    pairs = [*scored_pairs(model, n=4), *scored_pairs(model, n=7, chosen="negative")[4:]]
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=draw))
    return model, pairs


def gradient(network):
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_those_of_the_training_rule(moved, name):
    model, pairs = moved
    loss = loss_of(**CASES[name])
    model.network.zero_grad()
    ours = loss(model.network, PairCollator(pad_id=2)(rows_of(loss, pairs)))
    ours.backward()
    found = gradient(model.network)
    model.network.zero_grad()
    rule = DPO(model, **{**OPTIONS, "optim": OPTIM, **CASES[name]})
    theirs = sum(rule.loss(micro)[0] for micro in rule.micros(rule.items(pairs))) / len(pairs)
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert (found - gradient(model.network)).norm() <= 1e-5 * found.norm()


def test_log_probs_of_a_padded_batch_are_those_of_each_row_alone(moved):
    model, pairs = moved
    loss = loss_of()
    found = padded_logp(model.network, PairCollator(pad_id=2)(rows_of(loss, pairs)))
    by_hand = [
        [plain_logp(model.network, pair.plain_context_ids, getattr(pair, f"{side}_ids")).item() for side in sides(pair)]
        for pair in pairs
    ]
    assert found.tolist() == [pytest.approx(row, abs=1e-4) for row in by_hand]


def test_the_batch_holds_chosen_answers_then_rejected_ones_as_trls_own():
    rows = [
        {"context_ids": [1, 2, 3], "answer_ids": [[4, 5], [6]], "columns": [0.0] * 6},
        {"context_ids": [7, 8], "answer_ids": [[9], [10, 11]], "columns": [1.0] * 6},
    ]
    batch = PairCollator(pad_id=0)(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5], [7, 8, 9, 0, 0], [1, 2, 3, 6, 0], [7, 8, 10, 11, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0]]
    assert batch["completion_mask"].tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 1, 1, 0]]
    assert batch["columns"].tolist() == [[0.0] * 6, [1.0] * 6]


def test_the_loss_before_any_update_is_its_closed_form():
    """h is 0, so the loss of a pair is log(1 + exp(margin_weight * clamped margin))."""
    model = small_model()
    pairs, loss = scored_pairs(model, n=6), loss_of()
    with torch.no_grad():
        found = loss(model.network, PairCollator(pad_id=2)(rows_of(loss, pairs)))
    clamped = torch.tensor([min(max(pair.margin, -4.0), 4.0) for pair in pairs])
    assert found.item() == pytest.approx((1 + (0.25 * clamped).exp()).log().mean().item(), rel=1e-5)


def test_margins_none_of_which_is_above_0_weigh_nothing():
    pairs = [pair for pair in scored_pairs(small_model(), n=12) if pair.margin < 0]
    with pytest.raises(UserError, match=r"objective\.weighted: "):
        loss_of(weighted=True).rows(pairs)


@pytest.mark.parametrize(
    ("loss", "margins", "weight", "learns"),
    [
        (SoftLabels(tau=1.0), [0.0, 0.0], 0.25, False),
        (SoftLabels(tau=1.0), [0.0, 0.5], 0.0, True),
        (RewardDistillation(), [0.0, 0.0], 0.25, False),
        (RewardDistillation(), [1.0, 2.0], 0.0, False),
        (RewardDistillation(), [1.0, 2.0], 0.25, True),
        (Sigmoid(), [0.0, 0.0], 0.25, True),
        (Ipo(beta=0.5), [0.0, 0.0], 0.25, True),
    ],
)
def test_labels_that_leave_a_loss_nothing_to_learn_are_refused(loss, margins, weight, learns):
    """Where the policy is the reference the gradient is zero: of z^2 at z = 0, of soft labels at z = m = 0."""
    (one,) = scored_pairs(small_model(), n=1, chosen="positive")
    pairs = [dataclasses.replace(one, margin=margin) for margin in margins]
    rule = loss_of(loss=loss, margin_weight=weight)
    if learns:
        assert len(rule.rows(pairs)) == len(pairs)
    else:
        with pytest.raises(UserError, match=r"objective\.loss: .* learns from margins alone"):
            rule.rows(pairs)
