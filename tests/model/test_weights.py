"""Weights load whole or not at all: each tensor that is missing, besides, or of another shape is named."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import save_small, small_model

from dlma.errors import UserError
from dlma.model.load import Lora, ModelSpec
from dlma.model.reward_model import REWARD_HEAD, RewardModel
from dlma.model.weights import weights_at_fault
from dlma.sampler.local import LocalSampler, Request

WEIGHTS = "model.safetensors"


def changed(folder, change, file=WEIGHTS):
    """Write a folder's tensors again, after a change of the table."""
    tensors = load_file(folder / file)
    change(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / file, {"format": "pt"})


def spec(folder, **changes):
    return ModelSpec(name="m", folder=folder, dtype="float32", **changes)


def refusal(load):
    with pytest.raises(UserError) as reason:
        load()
    assert "\n" not in str(reason.value)
    return str(reason.value)


def without(name):
    return lambda tensors: tensors.pop(name)


def halved(name):
    return lambda tensors: tensors.update({name: tensors[name][: len(tensors[name]) // 2]})


DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without(DOWN), f"1 missing: {DOWN}"),
        (without("lm_head.weight"), "1 missing: lm_head.weight"),  # not tied: nothing could stand in for it
        (without("model.embed_tokens.weight"), "1 missing: model.embed_tokens.weight"),
        (lambda t: t.update({"v_head.weight": torch.zeros(1, 32)}), "1 unexpected: v_head.weight"),
        (halved(DOWN), f"1 of another shape: {DOWN} (16, 48) instead of (32, 48)"),
        (lambda t: [t.pop(n) for n in list(t) if ".1." in n], "9 missing: model.layers.1.input_layernorm.weight, "),
    ],
    ids=["missing", "head", "embeddings", "unexpected", "shape", "layer"],
)
def test_a_model_that_is_not_whole_is_refused_by_name(tmp_path, change, said):
    folder = save_small(tmp_path / "m")
    changed(folder, change)
    line = refusal(spec(folder).load)
    assert said in line and str(folder) in line


def test_a_tied_head_and_buffers_of_old_checkpoints_are_no_fault(tmp_path):
    folder = save_small(tmp_path / "m")
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, "tie_word_embeddings": True}))
    changed(folder, without("lm_head.weight"))
    changed(folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    causal = spec(folder).load().causal
    assert torch.equal(causal.lm_head.weight, causal.model.embed_tokens.weight)


@pytest.fixture
def adapter(tmp_path):
    base = save_small(tmp_path / "base")
    network = spec(base, lora=Lora(2, 4.0, ["q_proj", "v_proj"])).load().network
    network.save_pretrained(tmp_path / "adapter")
    return spec(base, adapter=tmp_path / "adapter")


LORA = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without(LORA), f"1 missing: {LORA}"),
        (lambda t: t.update({LORA.replace("q_", "o_"): t[LORA].clone()}), "1 unexpected: " + LORA.replace("q_", "o_")),
        (halved(LORA), f"1 of another shape: {LORA} (16, 2) instead of (32, 2)"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_an_adapter_that_is_not_whole_is_refused_by_name(adapter, change, said):
    adapter.load()
    changed(adapter.adapter, change, "adapter_model.safetensors")
    assert said in refusal(adapter.load)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("bias"), "1 missing: bias"),
        (lambda t: t.update(scale=torch.ones(1)), "1 unexpected: scale"),
        (lambda t: t.update(weight=torch.ones(1, 8)), "1 of another shape: weight (1, 8) instead of (1, 32)"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_a_reward_head_that_is_not_whole_is_refused_by_name(tmp_path, change, said):
    RewardModel(small_model()).save(tmp_path / "m")
    RewardModel.load(spec(tmp_path / "m"), tmp_path / "m")
    changed(tmp_path / "m", change, REWARD_HEAD)
    assert said in refusal(lambda: RewardModel.load(spec(tmp_path / "m"), tmp_path / "m"))


def test_a_head_that_is_not_there_is_one_line(tmp_path):
    save_small(tmp_path / "m")
    assert REWARD_HEAD in refusal(lambda: RewardModel.load(spec(tmp_path / "m"), tmp_path / "m"))


def test_sampling_from_nan_weights_says_which_and_of_huge_ones_what(tmp_path):
    model = small_model()
    model.network.model.layers[1].mlp.down_proj.weight.data[0, 0] = torch.nan
    sampler = LocalSampler(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=3)
    line = refusal(lambda: sampler.sample(model, [Request(1, [0, 5], id="p1")]))
    assert "NaN or infinite" in line and "model.layers.1.mlp.down_proj.weight" in line
    assert "finite" in weights_at_fault(small_model().network)


def test_rows_whose_logits_turn_nan_on_the_way_are_named():
    model = small_model()
    sampler = LocalSampler(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=3)
    sampler.sample(model, [Request(1, [0, 5], id="good")])  # its cache is tried now, with sound weights
    model.network.model.embed_tokens.weight.data[7] = torch.inf
    line = refusal(lambda: sampler.sample(model, [Request(1, [0, 5], 1, "good"), Request(2, [0, 7], 1, "bad")]))
    assert "(rows bad)" in line and "model.embed_tokens.weight" in line
