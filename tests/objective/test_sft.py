"""Fine-tuning on chosen answers, and context distillation: losses by hand, layouts, the step-0 check, LoRA."""

import copy
import dataclasses

import pytest
import torch
from scored_examples import TRAINING, prompted_pairs, scored_pairs
from small_models import FOUR_SHAPES, plain_logp, small_model

from dlma.errors import UserError
from dlma.model.language import LanguageModel
from dlma.model.trees import padded_width
from dlma.objective.distill import ContextDistillation
from dlma.objective.sft import SFT
from dlma.trainer.runtime import Runtime


def moved_copy(model):
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return moved


def step(rule, pairs):
    """Loss and gradient of one step with these pairs."""
    rule.network.zero_grad()
    micros = rule.micros(rule.items(pairs))
    total = sum(rule.loss(micro)[0] for micro in micros) / len(pairs)
    total.backward()
    gradient = {n: p.grad.clone() for n, p in rule.network.named_parameters() if p.grad is not None}
    return total.item(), gradient, len(micros)


def assert_same(ours, theirs, tolerance=1e-4):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ((ours[name] - value).norm() / value.norm()).item() < tolerance, name


@pytest.mark.parametrize("chosen", ["positive", "negative"])
def test_sft_is_the_mean_negative_log_prob_over_all_chosen_tokens(chosen):
    model = small_model()
    pairs = scored_pairs(model, n=4, chosen=chosen)
    loss, gradient, _ = step(SFT(model, **TRAINING), pairs)
    model.network.zero_grad()
    answers = [getattr(pair, f"{chosen}_ids") for pair in pairs]
    logp = [plain_logp(model.network, p.plain_context_ids, a) for p, a in zip(pairs, answers, strict=True)]
    by_hand = -torch.stack(logp).sum() / sum(map(len, answers))
    by_hand.backward()
    assert loss == pytest.approx(by_hand.item(), rel=1e-5)
    assert_same(gradient, {n: p.grad for n, p in model.network.named_parameters() if p.grad is not None})


@pytest.mark.parametrize("which", [0, 1], ids=["sft", "distill"])
def test_the_sum_of_the_steps_is_the_whole_whatever_share_of_the_rows_each_holds(which):
    """Every token weighs the same: losses of parts, weighed by their rows, add up to the loss of all."""
    model = small_model()
    pairs = prompted_pairs(model, n=6)
    rule = rules(moved_copy(model))[which]
    items = rule.items(pairs)

    def total(rows):
        return sum(rule.loss(micro)[0].item() for micro in rule.micros(rows))

    assert total(items[:1]) + total(items[1:4]) + total(items[4:]) == pytest.approx(total(items), rel=1e-5)


def distributions(network, context, answer):
    """The next-token distributions at every token of an answer, one forward pass each."""
    rows = [network(torch.tensor([[*context, *answer[:i]]])).logits[0, -1].double() for i in range(len(answer))]
    return torch.stack(rows).log_softmax(-1)


@pytest.mark.parametrize("kind", FOUR_SHAPES)
@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_distillation_is_the_mean_exact_divergence_on_the_positive_answers(kind, direction):
    """reverse: KL(policy || prompted base); the labels play no part."""
    model = small_model(kind)
    pairs = prompted_pairs(model, n=3, chosen="negative")
    rule = ContextDistillation(model, direction=direction, **TRAINING)  # the reference is what the model is here
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    loss, gradient, _ = step(rule, pairs)
    model.network.zero_grad()
    each = []
    for pair in pairs:
        ours = distributions(model.network, pair.plain_context_ids, pair.positive_ids)
        theirs = distributions(reference.network, pair.positive_context_ids, pair.positive_ids).detach()
        first, second = (ours, theirs) if direction == "reverse" else (theirs, ours)
        each.append((first.exp() * (first - second)).sum(-1))
    by_hand = torch.cat(each).mean()
    by_hand.backward()
    assert loss == pytest.approx(by_hand.item(), rel=1e-4)
    assert_same(gradient, {n: p.grad for n, p in model.network.named_parameters() if p.grad is not None}, 1e-3)


def rules(model):
    return [SFT(model, **TRAINING), ContextDistillation(model, direction="reverse", **TRAINING)]


@pytest.mark.parametrize("which", [0, 1], ids=["sft", "distill"])
def test_the_update_does_not_depend_on_how_a_step_is_cut(which):
    model = small_model()
    pairs = prompted_pairs(model)
    kinds = [(SFT, {}), (ContextDistillation, {"direction": "reverse"})]
    kind, options = kinds[which]
    whole, gradient, one = step(kind(model, **options, **TRAINING, token_budget=100_000), pairs)
    cut, other, many = step(kind(model, **options, **TRAINING, token_budget=1), pairs)
    assert (one, many) == (1, len(pairs))
    assert cut == pytest.approx(whole, rel=1e-5)
    assert_same(gradient, other)


@pytest.mark.parametrize("which", [0, 1], ids=["sft", "distill"])
def test_training_learns_and_leaves_a_policy(tmp_path, which):
    model = small_model()
    pairs = prompted_pairs(model, n=8)
    rule = rules(model)[which]
    rule.epochs = 6
    assert rule.fit(pairs, Runtime(), tmp_path, lambda row: None) == [None, None]
    assert rule.log_rows[-1]["loss"] < rule.log_rows[0]["loss"]
    assert (tmp_path / "policy" / "model.safetensors").is_file()


@pytest.mark.parametrize("which", [0, 1], ids=["sft", "distill"])
def test_the_step_0_check_stops_when_the_reference_is_not_the_policys(tmp_path, which):
    model = small_model()
    pairs = [dataclasses.replace(p, positive_reference=p.positive_reference - 1) for p in prompted_pairs(model)]
    with pytest.raises(UserError, match="step-0 check"):
        rules(model)[which].fit(pairs, Runtime(), tmp_path, lambda row: None)
    assert not (tmp_path / "policy").exists()


@pytest.mark.parametrize("which", [0, 1], ids=["sft", "distill"])
def test_no_pairs_is_one_clear_line(tmp_path, which):
    with pytest.raises(UserError, match="no pair to train on"):
        rules(small_model())[which].fit([], Runtime(), tmp_path, lambda row: None)


def test_under_lora_the_teacher_is_the_base_and_only_the_adapter_learns():
    from peft import LoraConfig, get_peft_model

    base = small_model()
    pairs = prompted_pairs(base, n=3)
    expected = step(ContextDistillation(copy.deepcopy(base), direction="reverse", **TRAINING), pairs)[0]
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    model = LanguageModel(get_peft_model(base.network, config).eval(), base.tokenizer, "lora")
    rule = ContextDistillation(model, direction="reverse", **TRAINING)
    assert rule.reference.network is None
    first, gradient, _ = step(rule, pairs)
    assert first == pytest.approx(expected, rel=1e-4)
    assert gradient and all("lora" in name for name in gradient)
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3)
    moved = step(rule, pairs)[0]
    with rule.reference.model() as teacher:
        plain = teacher.causal(torch.tensor([[0, 5, 6]])).logits
    assert moved != pytest.approx(first, rel=1e-3)
    assert not torch.equal(model.causal(torch.tensor([[0, 5, 6]])).logits, plain)


def test_padding_is_tried_before_training_at_the_longest_row_of_all_and_not_again(tmp_path, monkeypatch):
    """Where layers are spread over processes, each has to make equally many passes."""
    model = small_model()
    rule, rows = ContextDistillation(model, direction="reverse", **TRAINING), prompted_pairs(model)
    widest = max(max(len(p.plain_context_ids), len(p.positive_context_ids)) + len(p.positive_ids) for p in rows)
    before = {}
    train_on = rule.train_on
    monkeypatch.setattr(rule, "train_on", lambda *given: before.update(model.padded) or train_on(*given))
    rule.fit(rows, Runtime(), tmp_path, lambda row: None)
    assert list(before) == [padded_width(widest)] and model.padded == before
