"""A steering vector: the mean by a plain loop, and a policy whose layer is moved by it and by nothing else."""

import copy

import pytest
import torch
from scored_examples import prompted_pairs
from small_models import small_model
from transformers import AutoModelForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer

from dlma.errors import UserError
from dlma.objective.steering import Steering
from dlma.trainer.runtime import Runtime

SHAPES = ["llama", "gpt2", "gpt_neox"]


def steering(model, **changes):
    return Steering(model, **{**dict(layer=0.5, scale=2.0, prompts=256), **changes})


def hidden(network, ids, layer):
    """What transformers itself says a layer hands on (index 0 are the embeddings)."""
    with torch.no_grad():
        return network(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]


def by_hand(network, pairs, layer):
    total = 0.0
    for pair in pairs:
        for ids in (pair.positive_ids, pair.negative_ids):
            for context, sign in ((pair.positive_context_ids, 1), (pair.negative_context_ids, -1)):
                total = total + sign * hidden(network, [*context, *ids[:-1]], layer)[len(context) - 1 :].mean(0)
    return total / (2 * len(pairs))


@pytest.mark.parametrize("kind", SHAPES)
def test_the_vector_is_the_mean_difference_of_the_layers_activations(kind):
    model = small_model(kind)
    pairs = prompted_pairs(model, n=4)
    assert torch.allclose(steering(model).vector(pairs), by_hand(model.network, pairs, 1), atol=1e-5)
    one = steering(model, prompts=1).vector(pairs)
    assert min((one - by_hand(model.network, [pair], 1)).norm().item() for pair in pairs) < 1e-5


@pytest.mark.parametrize("kind", SHAPES)
def test_the_policy_is_the_base_with_the_vector_in_one_layer_and_loads_as_a_model(kind, tmp_path):
    base = small_model(kind)
    pairs = prompted_pairs(base, n=3)
    rule = steering(copy.deepcopy(base))
    vector = 2.0 * rule.vector(pairs)
    assert rule.fit(pairs, Runtime(), tmp_path, lambda row: None) == [None, None]
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    ids = [0, 5, 6, 7, 8]
    moved = hidden(policy, ids, 1) - hidden(base.network, ids, 1)
    assert torch.allclose(moved, vector.expand_as(moved), atol=1e-5)
    assert torch.equal(hidden(policy, ids, 0), hidden(base.network, ids, 0))
    layers = [m for m in base.causal.modules() if isinstance(m, GradientCheckpointingLayer)]

    def add(module, given, out):
        return (out[0] + vector, *out[1:]) if isinstance(out, tuple) else out + vector

    hook = layers[0].register_forward_hook(add)
    with torch.no_grad():
        wanted = base.network(torch.tensor([ids])).logits
    hook.remove()
    assert torch.allclose(policy(torch.tensor([ids])).logits, wanted, atol=1e-4)


def test_an_architecture_that_has_no_place_for_it_is_refused(tmp_path):
    model = small_model("gemma2")  # its layers scale what their last product gives
    with pytest.raises(UserError, match="objective=steering"):
        steering(model).fit(prompted_pairs(model, n=2), Runtime(), tmp_path, lambda row: None)
    assert not (tmp_path / "policy").exists()


@pytest.mark.parametrize("kind", SHAPES)
def test_weights_of_fewer_digits_are_moved_as_far_as_these_tell(kind, tmp_path):
    base = small_model(kind)
    pairs = prompted_pairs(base, n=3)
    base.network.to(torch.bfloat16)
    rule = steering(copy.deepcopy(base))
    vector = 2.0 * rule.vector(pairs)
    before = rule.output([0, 5, 6, 7])
    rule.fit(pairs, Runtime(), tmp_path, lambda row: None)
    moved = (rule.output([0, 5, 6, 7]) - before).float()
    assert ((moved - vector).norm(dim=-1) < 2**-6 * before.float().norm(dim=-1)).all()


def test_an_architecture_without_a_place_is_refused_in_fewer_digits_too(tmp_path):
    model = small_model("gemma2")
    pairs = prompted_pairs(model, n=2)
    model.network.to(torch.bfloat16)
    with pytest.raises(UserError, match="objective=steering"):
        steering(model, scale=50.0).fit(pairs, Runtime(), tmp_path, lambda row: None)
