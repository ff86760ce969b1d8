"""One step of TRL's trainers on a tiny model: the same loss and gradient for every DPO loss, and the reward model."""

import copy
import dataclasses
from collections import Counter

import pytest
import torch
import transformers
from scored_examples import OPTIM, OPTIONS, scored_pairs
from small_models import small_model

from dlma.objective.dpo import DPO
from dlma.objective.losses import Ipo, Sigmoid, TargetMargin
from dlma.reward import BradleyTerry

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

BETA = 0.5
CASES = {
    "sigmoid": (dict(loss_type=["sigmoid"]), dict(loss=Sigmoid())),
    "ipo": (dict(loss_type=["ipo"]), dict(loss=Ipo(beta=BETA), per_token=True)),
    "per_token": (dict(loss_type=["sigmoid_norm"]), dict(loss=Sigmoid(), per_token=True)),
    "nll": (dict(loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.3]), dict(loss=Sigmoid(), nll_weight=0.3)),
}


def moved_copy(model):
    """The same model after an update, so that policy and reference differ."""
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return moved


def equal_lengths(pairs):
    """Pairs whose chosen answers have one length: TRL's "sft" term is a mean over all tokens of a batch."""
    ((length, _),) = Counter(len(p.positive_ids) for p in pairs).most_common(1)
    return [p for p in pairs if len(p.positive_ids) == length]


def theirs(folder, policy, reference, pairs, **options):
    """Loss and gradient of TRL's trainer on one batch."""
    text = datasets.Dataset.from_list([{"prompt": "w4 w5", "chosen": " w6", "rejected": " w7"}] * 2)
    config = trl.DPOConfig(
        output_dir=str(folder), beta=BETA, use_cpu=True, report_to="none", max_length=None, bf16=False,
        gradient_checkpointing=False, disable_dropout=True, **options,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=policy.network,
        ref_model=reference.network,
        args=config,
        train_dataset=text,
        processing_class=policy.tokenizer,
    )
    rows = [
        {"prompt_ids": p.plain_context_ids, "chosen_ids": p.positive_ids, "rejected_ids": p.negative_ids} for p in pairs
    ]
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    policy.network.zero_grad()
    loss.backward()
    return loss.item(), gradients(policy)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.network.named_parameters() if p.grad is not None}


def ours(policy, pairs, **options):
    rule = DPO(policy, **{**OPTIONS, "beta": BETA, "margin_weight": 0.0, **options})
    policy.network.zero_grad()
    total = sum(rule.loss(micro)[0] for micro in rule.micros(rule.items(pairs))) / len(pairs)
    total.backward()
    return total.item(), gradients(policy)


@pytest.mark.parametrize("name", CASES)
def test_the_same_step_as_trl(tmp_path, name):
    peer, options = CASES[name]
    reference = small_model()
    pairs = equal_lengths(scored_pairs(reference, n=24))
    assert len(pairs) >= 3
    policy = moved_copy(reference)
    mine, my_gradient = ours(policy, pairs, **options)
    loss, gradient = theirs(tmp_path, policy, reference, pairs, **peer)
    assert mine == pytest.approx(loss, rel=1e-5)
    assert my_gradient.keys() == gradient.keys()
    for parameter, value in gradient.items():
        assert ((my_gradient[parameter] - value).norm() / value.norm()).item() < 1e-4, parameter


def padded(rows, fill):
    """Rows of unequal length as a rectangle, filled up at the end."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], batch_first=True, padding_value=fill)


def test_the_same_step_of_simpo_as_trl(tmp_path):
    cpo = pytest.importorskip("trl.experimental.cpo")
    pairs = scored_pairs(small_model(), n=8)
    policy = moved_copy(small_model())
    options = dict(loss=TargetMargin(target_margin=0.7), per_token=True, reference_free=True)
    mine, my_gradient = ours(policy, pairs, **options)
    config = cpo.CPOConfig(
        output_dir=str(tmp_path), beta=BETA, loss_type="simpo", simpo_gamma=0.7, cpo_alpha=0.0, use_cpu=True,
        report_to="none", bf16=False, gradient_checkpointing=False, disable_dropout=True, max_length=64,
    )  # fmt: skip
    text = datasets.Dataset.from_list([{"prompt": "w4 w5", "chosen": " w6", "rejected": " w7"}] * 2)
    peer = cpo.CPOTrainer(model=policy.network, args=config, train_dataset=text, processing_class=policy.tokenizer)
    batch = {}
    for side, answers in (("chosen", "positive_ids"), ("rejected", "negative_ids")):
        rows = [(p.plain_context_ids, getattr(p, answers)) for p in pairs]
        batch[f"{side}_input_ids"] = padded([context + ids for context, ids in rows], 0)
        batch[f"{side}_attention_mask"] = padded([[1] * len(context + ids) for context, ids in rows], 0)
        batch[f"{side}_labels"] = padded([[-100] * len(context) + ids for context, ids in rows], -100)
    loss = peer.compute_loss(peer.model, batch)
    policy.network.zero_grad()
    loss.backward()
    assert mine == pytest.approx(loss.item(), rel=1e-5)
    for parameter, value in gradients(policy).items():
        assert ((my_gradient[parameter] - value).norm() / value.norm()).item() < 1e-4, parameter


def test_the_same_reward_model_step_as_trl(tmp_path):
    model = small_model()
    pairs = scored_pairs(model, n=8)
    rule = BradleyTerry(
        model, margin_weight=1.0, margin_low=-2.0, margin_high=2.0, margin_unit="nats",
        optim=dataclasses.replace(OPTIM, warmup=1), epochs=1, batch_pairs=8, seed=0,
    )  # fmt: skip
    with torch.no_grad():
        rule.reward.head.weight.normal_(generator=torch.Generator().manual_seed(2))
    peer = transformers.LlamaForSequenceClassification(model.causal.config)
    peer.config.num_labels, peer.num_labels = 1, 1
    peer.score = torch.nn.Linear(model.causal.config.hidden_size, 1, bias=False)
    peer.model.load_state_dict(model.causal.model.state_dict())
    peer.score.load_state_dict({"weight": rule.reward.head.weight.detach().clone()})
    text = datasets.Dataset.from_list([{"chosen": "w4 w6", "rejected": "w4 w7"}] * 2)
    config = trl.RewardConfig(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", max_length=None, bf16=False,
        gradient_checkpointing=False, disable_dropout=True,
    )  # fmt: skip
    trainer = trl.RewardTrainer(model=peer, args=config, train_dataset=text, processing_class=model.tokenizer)
    rows = [
        {
            "chosen_ids": [*p.plain_context_ids, *p.positive_ids],
            "rejected_ids": [*p.plain_context_ids, *p.negative_ids],
            "margin": min(max(p.margin, -2.0), 2.0),
        }
        for p in pairs
    ]
    theirs_ = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    theirs_.backward()
    ours_ = sum(rule.loss(micro)[0] for micro in rule.micros(rule.items(pairs))) / len(pairs)
    ours_.backward()
    assert ours_.item() == pytest.approx(theirs_.item(), rel=1e-5)
    gradient = {name: p.grad for name, p in peer.model.named_parameters()}
    for name, parameter in model.causal.model.named_parameters():
        assert ((parameter.grad - gradient[name]).norm() / gradient[name].norm()).item() < 1e-4, name
    assert torch.allclose(rule.reward.head.weight.grad, peer.score.weight.grad, rtol=1e-4, atol=1e-6)
