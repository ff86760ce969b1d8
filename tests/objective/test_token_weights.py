"""DPO with weighted tokens: TIS-DPO's loss by a plain loop, its closed form, and plain DPO where all weigh the same."""

import copy
import dataclasses
import math

import pytest
import torch
from scored_examples import OPTIONS, prompted_pairs
from small_models import plain_logp, small_model

from dlma.errors import UserError
from dlma.objective.dpo import DPO
from dlma.objective.token_weights import TokenWeights
from dlma.records import Pair
from dlma.scorer.self_reward_by_token import SelfRewardByToken
from dlma.trainer.runtime import Runtime

BETA, MU, LIMIT = 0.5, 0.8, 0.6
WEIGHTS = TokenWeights(k=1.3, mu=MU, reward_low=-LIMIT, reward_high=LIMIT)


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def pairs(model):
    rows = SelfRewardByToken(model).score([_bare(pair) for pair in prompted_pairs(model, n=6)])
    return [dataclasses.replace(row, chosen="negative" if i % 2 else "positive") for i, row in enumerate(rows)]


def _bare(pair):
    return Pair(**{field.name: getattr(pair, field.name) for field in dataclasses.fields(Pair)})


@pytest.fixture(scope="module")
def moved(model):
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return moved


def rule(model, **options):
    return DPO(model, **{**OPTIONS, "beta": BETA, "margin_weight": 0.0, "token_weights": WEIGHTS, **options})


def weighted_ratio(network, reference, pair, side, mu):
    """sum of w_t * (log pi_theta - log pi) over an answer's tokens, one token at a time."""
    ids, total = getattr(pair, f"{side}_ids"), 0.0
    for i, token in enumerate(ids):
        reward = (
            plain_logp(reference, pair.positive_context_ids + ids[:i], [token])
            - plain_logp(reference, pair.negative_context_ids + ids[:i], [token])
        ).item()
        before = pair.plain_context_ids + ids[:i]
        weight = 1.3 * math.exp(mu * min(max(reward, -LIMIT), LIMIT))
        total += weight * (plain_logp(network, before, [token]) - plain_logp(reference, before, [token])).item()
    return total


def test_the_loss_is_the_formula(model, moved, pairs):
    losses = []
    for pair in pairs:
        order = ("positive", "negative") if pair.chosen == "positive" else ("negative", "positive")
        chosen, rejected = (
            weighted_ratio(moved.network, model.network, pair, side, mu)
            for side, mu in zip(order, (MU, -MU), strict=True)
        )
        losses.append(math.log1p(math.exp(-BETA * (chosen - rejected))))
    trained = rule(moved)
    with torch.no_grad():
        ours = sum(trained.loss(micro)[0].item() for micro in trained.micros(trained.items(pairs))) / len(pairs)
    assert ours == pytest.approx(sum(losses) / len(losses), rel=1e-4)


@pytest.mark.parametrize("layout", ["tree", "dense"])
def test_the_update_does_not_depend_on_how_a_step_is_cut(moved, pairs, layout):
    found = []
    for budget in (1, 100_000):
        trained = rule(moved, token_budget=budget)
        with trained.engine.forced(layout):
            moved.network.zero_grad()
            sum(trained.loss(micro)[0] for micro in trained.micros(trained.items(pairs))).backward()
        found.append(torch.cat([p.grad.flatten() for p in moved.network.parameters() if p.grad is not None]))
    assert ((found[0] - found[1]).norm() / found[1].norm()).item() < 1e-5


def test_equal_weights_are_plain_dpo(moved, pairs):
    same, plain = (
        rule(moved, token_weights=TokenWeights(k=1.0, mu=0.0, reward_low=-1.0, reward_high=1.0)),
        rule(moved, token_weights=None),
    )
    with torch.no_grad():
        one, other = (sum(r.loss(m)[0].item() for m in r.micros(r.items(pairs))) for r in (same, plain))
    assert one == pytest.approx(other, rel=1e-5)


def test_the_first_loss_is_ln_2_and_the_step_0_check_knows_it(tmp_path, model, pairs):
    trained = rule(copy.deepcopy(model), epochs=1)
    trained.fit(pairs, Runtime(), tmp_path, lambda row: None)
    assert trained.log_rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_pairs_without_their_tokens_are_refused(model):
    with pytest.raises(UserError, match=r"objective\.token_weights: .*scorer=self_reward_by_token"):
        rule(model).items(prompted_pairs(model, n=2))
