"""The reward model's training: it recovers a planted scale, its loss is the likelihood, it resumes exactly."""

import copy
import math

import pyarrow.parquet as pq
import pytest
import torch
from bandits import ARMS, CONTEXT, flat_model, pair, rewards
from scored_examples import REWARD_OPTIONS, scored_pairs
from small_models import small_model

from dlma.errors import UserError
from dlma.model.trees import Completion
from dlma.reward import BradleyTerry
from dlma.trainer.runtime import Runtime


def train(folder, model, pairs, **changes):
    rule = BradleyTerry(model, **{**REWARD_OPTIONS, **changes})
    rule.fit(pairs, Runtime(checkpoint_steps=1), folder, lambda row: None)
    return rule


def test_it_recovers_a_planted_bradley_terry_scale(tmp_path):
    model = flat_model()
    planted, copies = rewards(model).double(), 20
    pairs = []
    for one in ARMS:
        for other in ARMS:
            share = torch.sigmoid(planted[one] - planted[other]).item() if one != other else 0.0
            pairs += [pair(f"{one}-{other}-{k}", one, other) for k in range(round(copies * share))]
    rule = train(tmp_path, model, pairs, epochs=60, batch_pairs=len(pairs), lr=3e-3)
    found = rule.reward.score([[Completion(CONTEXT, [arm])] for arm in ARMS])
    values, wanted = torch.tensor(found).squeeze(1).double(), planted[list(ARMS)]
    assert values.argsort().tolist() == wanted.argsort().tolist()
    # centred alike; twenty copies of a pair round its probability by up to 1/40
    assert (values - values.mean() - wanted + wanted.mean()).abs().max() < 0.15


def test_the_first_loss_is_ln_2_and_training_orders_the_pairs(tmp_path):
    model = small_model()
    pairs = scored_pairs(model, n=16, chosen="negative")
    rule = train(tmp_path, model, pairs, epochs=8)
    assert rule.log_rows[0]["loss"] == pytest.approx(math.log(2))
    assert rule.log_rows[-1]["loss"] < 0.5 * math.log(2)
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [row["id"] for row in rows] == [p.id for p in pairs]
    assert sum(row["negative"] > row["positive"] for row in rows) >= 15


def test_rewards_are_centred_over_the_pairs_answers(tmp_path):
    model = small_model()
    pairs = scored_pairs(model, n=8)
    rule = train(tmp_path, model, pairs)
    groups = [[Completion(p.plain_context_ids, a) for a in (p.positive_ids, p.negative_ids)] for p in pairs]
    values = torch.tensor(rule.reward.score(groups))
    assert values.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert values.std() > 0.01


def test_a_margin_is_asked_for_and_clamped(tmp_path):
    pairs = scored_pairs(small_model(), n=4)
    rule = train(tmp_path, small_model(), pairs, margin_weight=0.5, margin_low=-1.0, margin_high=2.0, epochs=1)
    clamped = [min(max(p.margin, -1.0), 2.0) for p in pairs]
    wanted = sum(math.log1p(math.exp(0.5 * m)) for m in clamped) / 4
    assert rule.log_rows[0]["loss"] == pytest.approx(wanted, rel=1e-5)


def test_the_update_does_not_depend_on_how_a_step_is_cut():
    model = small_model()
    pairs = scored_pairs(model)
    gradients = []
    for budget in (1, 100_000):
        rule = BradleyTerry(copy.deepcopy(model), **{**REWARD_OPTIONS, "token_budget": budget})
        with torch.no_grad():
            rule.reward.head.weight.normal_(generator=torch.Generator().manual_seed(2))
        micros = rule.micros(rule.items(pairs))
        sum(rule.loss(micro)[0] for micro in micros).backward()
        gradients.append((len(micros), [p.grad for p in rule.parameters() if p.grad is not None]))
    (many, cut), (one, whole) = gradients
    assert one < many == len(pairs)
    # the bias has no gradient but rounding: it cancels in every pair
    assert all((a - b).norm() <= 1e-4 * b.norm() + 1e-5 for a, b in zip(cut, whole, strict=True))


class Killed(Exception):
    pass


def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path, monkeypatch):
    base = small_model()
    pairs = scored_pairs(base, n=8)
    train(tmp_path / "straight", copy.deepcopy(base), pairs)
    original = BradleyTerry.record

    def dying(self, step, sums, norm):
        if self.global_step == 2:
            raise Killed
        original(self, step, sums, norm)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(BradleyTerry, "record", dying)
        train(tmp_path / "killed", copy.deepcopy(base), pairs)
    train(tmp_path / "killed", copy.deepcopy(base), pairs)
    for name in ("reward/model.safetensors", "reward/reward_head.safetensors", "rows.parquet", "train.csv"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_no_pairs_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="no pair to train on"):
        train(tmp_path, small_model(), [])
