"""Self-Steering Optimization: loss and gradient of a plain loop, in every layout; its first loss; what it refuses."""

import copy
import dataclasses
import math

import pytest
import torch
from scored_examples import OPTIM, prompted_pairs
from small_models import FOUR_SHAPES, plain_logp, small_model

from dlma.errors import UserError
from dlma.objective.self_steering import SelfSteering
from dlma.records import Pair
from dlma.scorer.self_reward import SelfReward
from dlma.trainer.runtime import Runtime

OPTIONS = dict(beta=0.5, weight=0.3, alpha=0.66, optim=OPTIM, epochs=2, batch_pairs=4, seed=0, token_budget=4096)


def both_pairs(model, n=4):
    """Of each prompt the pair (a+, a-), and the pair (a0, a+), whose a0 is another prompt's answer and a token more."""
    rows = [dataclasses.replace(p, negative_context_ids=[*p.plain_context_ids, 7]) for p in prompted_pairs(model, n=n)]
    first = [Pair(**{field.name: getattr(row, field.name) for field in dataclasses.fields(Pair)}) for row in rows]
    made = []
    for pair, other in zip(first, first[1:] + first[:1], strict=True):
        answers = {"positive_ids": [*other.negative_ids, 5], "negative_ids": pair.positive_ids}
        made += [pair, dataclasses.replace(pair, id=f"{pair.id}-1", **answers)]
    return SelfReward(model).score(made)


def moved(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return other


def by_hand(network, frozen, pairs):
    """The published loss as it is written, one prompt and one sequence at a time."""
    losses = []
    for first, plain in zip(pairs[0::2], pairs[1::2], strict=True):
        preferred, worse, own = first.positive_ids, first.negative_ids, plain.positive_ids

        def ratio(context, answer):
            with torch.no_grad():
                reference = plain_logp(frozen, context, answer)
            return plain_logp(network, context, answer) - reference

        def dpo(context, chosen, rejected):
            gap = 0.5 * (ratio(context, chosen) - ratio(context, rejected))
            return -torch.nn.functional.logsigmoid(gap)

        q, positive, negative = first.plain_context_ids, first.positive_context_ids, first.negative_context_ids
        mean = [plain_logp(network, q, answer) / len(answer) for answer in (preferred, worse)]
        weight = torch.sigmoid(-(0.66 * mean[0] + 0.34 * mean[1]))
        further = 0.3 * dpo(positive, preferred, worse) + 0.3 * dpo(negative, own, preferred)
        losses.append(dpo(q, preferred, worse) + weight * further)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("kind", FOUR_SHAPES)
def test_loss_and_gradient_equal_the_published_formula(kind):
    base = small_model(kind)
    pairs = both_pairs(base)
    policy = moved(base)
    rule = SelfSteering(policy, **OPTIONS)
    micros = rule.micros(rule.items(pairs))
    policy.network.zero_grad()
    loss = sum(rule.loss(micro)[0] for micro in micros) / 4
    loss.backward()
    ours = {name: p.grad.clone() for name, p in policy.network.named_parameters() if p.grad is not None}
    policy.network.zero_grad()
    plain = by_hand(policy.network, base.network, pairs)
    plain.backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    for name, p in policy.network.named_parameters():
        if p.grad is not None:
            assert ((ours[name] - p.grad).norm() / p.grad.norm().clamp_min(1e-12)).item() < 1e-3, name


def test_the_update_does_not_depend_on_how_a_step_is_cut():
    base = small_model()
    pairs, policy = both_pairs(base), moved(base)
    found = []
    for budget in (4096, 1):
        rule = SelfSteering(policy, **{**OPTIONS, "token_budget": budget})
        micros = rule.micros(rule.items(pairs))
        found.append((len(micros), sum(rule.loss(micro)[0] for micro in micros).item()))
    assert found[0][0] < found[1][0] == 4
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)


def test_training_begins_with_the_closed_form_and_learns(tmp_path):
    """Before any update each of the three terms is ln 2, and W is that of the frozen model's log-probs per token."""
    model = small_model()
    pairs = both_pairs(model)
    means = [
        0.66 * p.positive_reference / len(p.positive_ids) + 0.34 * p.negative_reference / len(p.negative_ids)
        for p in pairs[0::2]
    ]
    weights = [1 / (1 + math.exp(mean)) for mean in means]
    rule = SelfSteering(model, **{**OPTIONS, "epochs": 20, "optim": dataclasses.replace(OPTIM, lr=1e-3)})
    assert rule.fit(pairs, Runtime(), tmp_path, lambda row: None) == [None, None]
    first, last = rule.log_rows[0], rule.log_rows[-1]
    assert first["loss"] == pytest.approx(math.log(2) * (1 + 0.6 * sum(weights) / 4), rel=1e-4)
    assert first["weight"] == pytest.approx(sum(weights) / 4, rel=1e-4)
    assert last["loss"] < first["loss"] and last["accuracy"] == 1


def test_other_pairs_are_refused(tmp_path):
    model = small_model()
    pairs = both_pairs(model)
    with pytest.raises(UserError, match="objective: no prompt has both pairs"):
        SelfSteering(model, **OPTIONS).fit(pairs[0::2], Runtime(), tmp_path, lambda row: None)
    blind = [dataclasses.replace(pair, positive_under_negative=None) for pair in pairs]
    with pytest.raises(UserError, match=r"objective=self_steering: .* scorer=self_reward"):
        SelfSteering(model, **OPTIONS).fit(blind, Runtime(), tmp_path, lambda row: None)
    turned = [dataclasses.replace(pair, chosen="negative") if i == 3 else pair for i, pair in enumerate(pairs)]
    with pytest.raises(UserError, match="labels turn pairs round"):
        SelfSteering(model, **OPTIONS).fit(turned, Runtime(), tmp_path, lambda row: None)
    wrong = [dataclasses.replace(pair, positive_reference=pair.positive_reference + 1) for pair in pairs]
    with pytest.raises(UserError, match="step-0 check"):
        SelfSteering(model, **OPTIONS).fit(wrong, Runtime(), tmp_path, lambda row: None)
