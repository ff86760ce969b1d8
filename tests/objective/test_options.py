"""DPO's options on real pairs: each loss, weights, per-token log-ratios, the NLL term, all against a plain loop."""

import copy
import dataclasses
import math

import pytest
import torch
from scored_examples import OPTIONS, scored_pairs
from small_models import plain_logp, small_model

from dlma.errors import UserError
from dlma.objective.dpo import DPO
from dlma.objective.losses import Conservative, Ipo, LogOffset, RewardDistillation, Sigmoid, SoftLabels, TargetMargin
from dlma.trainer.runtime import Runtime
from dlma.training.rule import Supplies

BETA, WEIGHT, LIMIT = 0.5, 0.25, 4.0


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def clamped(pair):
    return min(max(pair.margin, -LIMIT), LIMIT)


def weights(pairs):
    kept = [min(max(pair.margin, 0.0), LIMIT) for pair in pairs]
    return [len(kept) * value / sum(kept) for value in kept]


CASES = {
    "conservative": (dict(loss=Conservative(label_smoothing=0.1)), lambda z, r: 0.9 * softplus(-z) + 0.1 * softplus(z)),
    "soft": (
        dict(loss=SoftLabels(tau=2.0)),
        lambda z, r: softplus(-z) / (1 + math.exp(-r / 2)) + softplus(z) / (1 + math.exp(r / 2)),
    ),
    "ipo": (dict(loss=Ipo(beta=BETA)), lambda z, r: ((z - 0.5) / BETA) ** 2),
    "distillation": (dict(loss=RewardDistillation()), lambda z, r: z * z),
    "per_token": (dict(per_token=True), lambda z, r: softplus(-z)),
    "weighted": (dict(weighted=True), lambda z, r: softplus(-z)),
    "nll": (dict(nll_weight=0.2), lambda z, r: softplus(-z)),
    "target_margin": (dict(loss=TargetMargin(target_margin=0.7)), lambda z, r: softplus(0.7 - z)),
    "reference_free": (dict(reference_free=True), lambda z, r: softplus(-z)),
    "simpo": (
        dict(loss=TargetMargin(target_margin=0.7), per_token=True, reference_free=True),
        lambda z, r: softplus(0.7 - z),
    ),
    "odpo": (dict(loss=LogOffset(alpha=0.6)), lambda z, r: softplus(0.6 * math.log(r) - z)),
}


def pairs_for(name, model, n):
    """Scored pairs; where the loss takes the log of their margins, with the chosen answer ahead in all of them."""
    pairs = scored_pairs(model, n=n)
    return [dataclasses.replace(p, margin=abs(p.margin)) for p in pairs] if name == "odpo" else pairs


def by_hand(network, pairs, formula, options):
    """The mean loss of pairs whose positive answer is chosen, one sequence at a time."""
    total = 0.0
    shares = weights(pairs) if "weighted" in options else [1.0] * len(pairs)
    for pair, share in zip(pairs, shares, strict=True):
        logp = [
            plain_logp(network, pair.plain_context_ids, ids).item() for ids in (pair.positive_ids, pair.negative_ids)
        ]
        lengths = [len(pair.positive_ids), len(pair.negative_ids)] if "per_token" in options else [1, 1]
        ratios = [
            (value - (0 if "reference_free" in options else reference)) / length
            for value, reference, length in zip(logp, (pair.positive_reference, pair.negative_reference), lengths)
        ]
        z = BETA * (ratios[0] - ratios[1]) - WEIGHT * clamped(pair)
        nll = -logp[0] / len(pair.positive_ids) if "nll_weight" in options else 0.0
        total += share * formula(z, clamped(pair)) + 0.2 * nll
    return total / len(pairs)


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def moved(model):
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.network.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return moved


def rule(model, **options):
    return DPO(model, **{**OPTIONS, "beta": BETA, "margin_weight": WEIGHT, **options})


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_the_formula(model, moved, name):
    options, formula = CASES[name]
    pairs = pairs_for(name, model, 5)
    moved_rule = rule(moved, **options)
    with torch.no_grad():
        ours = sum(moved_rule.loss(micro)[0].item() for micro in moved_rule.micros(moved_rule.items(pairs))) / len(
            pairs
        )
        assert ours == pytest.approx(by_hand(moved.network, pairs, formula, options), rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_step_0_check_knows_the_closed_form_of_every_loss(tmp_path, model, name):
    options, formula = CASES[name]
    pairs = pairs_for(name, model, 4)
    trained = rule(copy.deepcopy(model), **{**options, "epochs": 1})
    trained.fit(pairs, Runtime(), tmp_path, lambda row: None)
    assert trained.log_rows[0]["loss"] == pytest.approx(by_hand(model.network, pairs, formula, options), rel=1e-4)


def test_a_first_loss_that_is_scaled_is_refused(tmp_path, model, monkeypatch):
    trained = rule(copy.deepcopy(model))
    honest = trained.loss
    monkeypatch.setattr(trained, "loss", lambda micro: (honest(micro)[0] * 6, honest(micro)[1]))
    with pytest.raises(UserError, match="step-0 check"):
        trained.fit(scored_pairs(model, n=4), Runtime(), tmp_path, lambda row: None)


def test_weights_are_over_all_pairs_and_not_over_a_step(model):
    pairs = scored_pairs(model, n=6)
    items = rule(model, weighted=True).items(pairs)
    assert [item.column[5] for item in items] == pytest.approx(weights(pairs), rel=1e-6)


def test_weighing_by_margins_needs_margins(model):
    pairs = [p for p in scored_pairs(model, n=12) if p.margin < 0]
    with pytest.raises(UserError, match=r"objective\.weighted: .* scorer that gives a margin"):
        rule(model, weighted=True).items(pairs)


@pytest.mark.parametrize("name", ["target_margin", "ipo", "per_token"])
def test_labels_that_are_right_in_a_share_of_cases_mix_both_losses(tmp_path, model, moved, name):
    """CREAM: C * L(chosen over rejected) + (1 - C) * L(rejected over chosen); the step-0 check knows it."""
    options, formula = CASES[name]
    pairs = scored_pairs(model, n=4)
    turned = [dataclasses.replace(p, chosen="negative") for p in pairs]
    mixed = by_hand(moved.network, pairs, lambda z, r: 0.7 * formula(z, r) + 0.3 * formula(-z, r), options)

    def mean(some, agreement):
        trained = rule(moved, **options)
        trained.supply(Supplies(some, None, agreement=agreement))
        with torch.no_grad():
            return sum(trained.loss(micro)[0].item() for micro in trained.micros(trained.items(some))) / len(some)

    assert mean(pairs, 0.7) == pytest.approx(mixed, rel=1e-5)  # turned round, h and margin change their signs
    assert mean(pairs, 0.7) == pytest.approx(0.7 * mean(pairs, None) + 0.3 * mean(turned, None), rel=1e-5)
    assert mean(pairs, 1.0) == mean(pairs, None)
    trained = rule(copy.deepcopy(model), **{**options, "epochs": 1})
    trained.supply(Supplies(pairs, None, agreement=0.7))
    trained.fit(pairs, Runtime(), tmp_path, lambda row: None)


def test_the_log_of_a_margin_wants_the_better_answer_chosen_before_any_step(model):
    with pytest.raises(UserError, match=r"objective\.loss: .* scorer=self_reward labels=sign_untied"):
        rule(model, loss=LogOffset(alpha=1.0)).items(scored_pairs(model, n=12))


def test_the_sigmoid_loss_is_the_default_of_the_paper():
    assert Sigmoid()(torch.zeros(3), torch.zeros(3)).tolist() == pytest.approx([math.log(2)] * 3)
