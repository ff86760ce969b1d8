"""DPO training: the loss and update of a plain loop, in every layout; exact resume; the step-0 check."""

import copy
import dataclasses

import pytest
import torch
from scored_examples import OPTIONS, changed, scored_pairs
from small_models import FOUR_SHAPES, plain_logp, small_model

from dlma.errors import UserError
from dlma.objective.dpo import DPO
from dlma.trainer.runtime import Runtime
from dlma.training.rule import StepLoader


def plain_dpo_loss(network, pairs):
    """The paper's loss as it is written, one pair and one sequence at a time."""
    losses = []
    for pair in pairs:
        swap = pair.chosen == "negative"
        sides = [(pair.positive_ids, pair.positive_reference), (pair.negative_ids, pair.negative_reference)]
        (chosen, chosen_reference), (rejected, rejected_reference) = sides[::-1] if swap else sides
        margin = min(max(-pair.margin if swap else pair.margin, -4.0), 4.0)
        h = (plain_logp(network, pair.plain_context_ids, chosen) - chosen_reference) - (
            plain_logp(network, pair.plain_context_ids, rejected) - rejected_reference
        )
        losses.append(-torch.nn.functional.logsigmoid(0.5 * h - 0.25 * margin))
    return torch.stack(losses).mean()


def step_gradient(model, pairs, **changes):
    """Loss and gradient of one step by our rule, without the optimizer."""
    rule = DPO(model, **changed(OPTIONS, **changes))
    micros = rule.micros(rule.items(pairs))
    model.network.zero_grad()
    total = sum(rule.loss(micro)[0] for micro in micros) / len(pairs)
    total.backward()
    gradients = {n: p.grad.clone() for n, p in model.network.named_parameters() if p.grad is not None}
    return total.item(), gradients, len(micros)


def assert_same(ours, theirs, tolerance):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ((ours[name] - theirs[name]).norm() / theirs[name].norm()).item() < tolerance, name


@pytest.mark.parametrize("kind", FOUR_SHAPES)
@pytest.mark.parametrize("chosen", ["positive", "negative"])
def test_loss_and_gradient_equal_the_papers_formula(kind, chosen):
    model = small_model(kind)
    pairs = scored_pairs(model, n=4, chosen=chosen)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.network.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    loss, ours, _ = step_gradient(moved, pairs)
    moved.network.zero_grad()
    plain = plain_dpo_loss(moved.network, pairs)
    plain.backward()
    assert loss == pytest.approx(plain.item(), rel=1e-5)
    theirs = {n: p.grad for n, p in moved.network.named_parameters() if p.grad is not None}
    assert_same(ours, theirs, 1e-4)


def test_the_update_does_not_depend_on_how_a_step_is_cut():
    model = small_model()
    pairs = scored_pairs(model)
    whole, gradient, one = step_gradient(model, pairs, token_budget=100_000)
    cut, other, many = step_gradient(model, pairs, token_budget=1)
    assert one < many == len(pairs)
    assert cut == pytest.approx(whole, rel=1e-6)
    assert_same(gradient, other, 1e-5)


def test_the_dense_and_the_tree_layout_give_the_same_update():
    model = small_model()
    pairs = scored_pairs(model)
    rule = DPO(model, **OPTIONS)
    rule.engine.layout = "dense"
    model.network.zero_grad()
    micros = rule.micros(rule.items(pairs))
    (sum(rule.loss(m)[0] for m in micros) / len(pairs)).backward()
    dense = {n: p.grad.clone() for n, p in model.network.named_parameters() if p.grad is not None}
    assert_same(step_gradient(model, pairs)[1], dense, 1e-5)


def test_identical_answers_teach_nothing():
    model = small_model()
    pair = scored_pairs(model, n=1)[0]
    twin = dataclasses.replace(
        pair, negative_ids=pair.positive_ids, negative_reference=pair.positive_reference, margin=0.0
    )
    _, gradient, _ = step_gradient(model, [twin])
    assert all(g.abs().max() < 1e-7 for g in gradient.values())


def train(folder, model, pairs, **changes):
    rule = DPO(model, **changed(OPTIONS, **changes))
    rule.fit(pairs, Runtime(checkpoint_steps=1), folder, lambda row: None)
    return {n: p.detach().clone() for n, p in model.network.named_parameters()}, rule.log_rows


def test_training_logs_the_closed_form_first_and_learns(tmp_path):
    model = small_model()
    pairs = scored_pairs(model, n=16)
    _, log = train(tmp_path, model, pairs, epochs=8, warmup=1)
    assert [row["step"] for row in log] == list(range(1, 33))
    assert log[0]["reward_margin"] == pytest.approx(0, abs=1e-4)
    assert log[-1]["loss"] < log[0]["loss"]
    assert (tmp_path / "policy" / "model.safetensors").is_file()


class Killed(Exception):
    pass


def test_a_run_killed_at_any_step_and_resumed_ends_with_the_same_bits(tmp_path, monkeypatch):
    base = small_model()
    pairs = scored_pairs(base)
    straight, log = train(tmp_path / "straight", copy.deepcopy(base), pairs)
    original = DPO.record
    for killed_at in range(len(log)):

        def dying(self, step, sums, norm, killed_at=killed_at):
            if self.global_step == killed_at and not self.resumed:
                raise Killed
            original(self, step, sums, norm)

        monkeypatch.setattr(DPO, "record", dying)
        folder = tmp_path / f"killed-{killed_at}"
        for resumed in (False, True):
            monkeypatch.setattr(DPO, "resumed", resumed, raising=False)
            try:
                weights, rows = train(folder, copy.deepcopy(base), pairs)
            except Killed:
                assert not resumed
        assert rows == log
        assert all(torch.equal(weights[name], straight[name]) for name in straight)


def test_each_epoch_visits_every_pair_once_in_an_order_of_its_own():
    class Rule:
        def micros(self, rows):
            return rows

    loader = StepLoader(Rule(), list(range(12)), batch=4, epochs=2, seed=0)
    steps = [step.micros for step in loader]
    first, second = ([row for step in part for row in step] for part in (steps[:3], steps[3:]))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert [s.micros for s in StepLoader(Rule(), list(range(12)), batch=4, epochs=2, seed=0)] == steps
    assert [s.micros for s in StepLoader(Rule(), list(range(12)), batch=4, epochs=2, seed=1)] != steps


@pytest.mark.parametrize("damage", ["reference", "both"])
def test_step_0_check_stops_when_the_reference_is_not_the_policys(tmp_path, damage):
    model = small_model()
    pairs = [
        dataclasses.replace(
            p, positive_reference=p.positive_reference - 1, negative_reference=p.negative_reference - (damage == "both")
        )
        for p in scored_pairs(model)
    ]
    with pytest.raises(UserError, match="step-0 check"):
        train(tmp_path, model, pairs)
    assert not (tmp_path / "policy").exists()


def test_warm_up_is_linear_then_constant(tmp_path):
    model = small_model()
    _, log = train(tmp_path, model, scored_pairs(model), warmup=4, lr=1e-4)
    assert [row["lr"] for row in log] == pytest.approx([2.5e-5, 5e-5, 7.5e-5, 1e-4])


def test_no_pairs_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="no pair to train on"):
        train(tmp_path, small_model(), [])
