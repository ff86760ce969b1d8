"""Loaded models: adapters on frozen bases, four-bit bases, and what a saved adapter says of its base."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from small_models import save_small

from dlma.model.engine import Engine
from dlma.model.load import Lora, ModelSpec
from dlma.model.meter import body_weights
from dlma.model.trees import Completion

IDS = torch.arange(3, 23).unsqueeze(0)
LORA = Lora(rank=2, alpha=8.0, targets="all-linear")
GROUP = [Completion([0, 5, 6, 7], [8, 9, 1]), Completion([0, 5, 6, 7], [10, 11])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("model"), spread=0.1)


def spec(folder, **changes):
    return dataclasses.replace(ModelSpec("small", folder, "float32"), **changes)


@torch.no_grad()
def logits(network):
    return network(IDS).logits


def relative(one, other):
    return ((one - other).norm() / other.norm()).item()


def test_fresh_adapters_change_nothing_and_only_they_are_trained(folder):
    base, fresh = spec(folder).load(), spec(folder, lora=LORA).load()
    assert torch.equal(logits(base.network), logits(fresh.network))
    trained = [name for name, p in fresh.network.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)


def test_a_four_bit_base_computes_with_its_weights_rounded_and_packed(folder):
    """Against bitsandbytes' own unpacking: the same network with each rounded weight as a float32."""
    full, packed = spec(folder).load(), spec(folder, bits=4, lora=LORA).load()
    unpacked = spec(folder, bits=4).load().network.dequantize(dtype=torch.float32)
    rounded = relative(logits(unpacked), logits(full.network))
    assert 1e-3 < rounded < 0.7
    assert relative(logits(packed.network), logits(unpacked)) < 1e-3 < rounded
    assert packed.dtype == torch.float32


def test_a_four_bit_base_scores_trains_and_counts_as_a_whole_one(folder):
    packed = spec(folder, bits=4, lora=LORA).load()
    tree = Engine(packed, layout="tree", notice=lambda line: None).score([GROUP])[0]
    dense = Engine(packed, layout="dense", notice=lambda line: None).score([GROUP])[0]
    assert tree == pytest.approx(dense, rel=1e-5)
    engine = Engine(packed, layout="tree", notice=lambda line: None)
    engine.response_logp(engine.collate(engine.plan([GROUP]))).sum().backward()
    gradients = [p.grad for n, p in packed.network.named_parameters() if "lora_B" in n]
    assert gradients and all(g is not None and g.isfinite().all() for g in gradients)
    whole = spec(folder).load()
    matrices = [m for n, m in packed.network.named_parameters() if "lora_" in n]
    low_rank = sum(m.numel() for m in matrices)
    assert body_weights(packed.causal, packed.head_layer) - low_rank == body_weights(whole.causal, whole.head_layer)


def test_a_saved_adapter_names_its_base_on_the_hub_by_commit(folder, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "snapshots" / commit
    place.parent.mkdir()
    place.symlink_to(folder)
    spec(place, lora=LORA, source="owner/name").load().network.save_pretrained(tmp_path / "adapter")
    said = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (said["base_model_name_or_path"], said["revision"]) == ("owner/name", commit)


def test_a_saved_adapter_of_a_local_base_names_its_folder(folder, tmp_path):
    spec(folder, lora=LORA).load().network.save_pretrained(tmp_path / "adapter")
    said = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert Path(said["base_model_name_or_path"]) == folder


def test_an_adapter_read_back_computes_what_it_did(folder, tmp_path):
    one = spec(folder, bits=4, lora=LORA).load()
    with torch.no_grad():
        for name, parameter in one.network.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    one.network.save_pretrained(tmp_path / "adapter")
    again = spec(folder, bits=4).trained(tmp_path / "adapter")
    assert (again.bits, again.adapter, again.lora) == (4, tmp_path / "adapter", None)
    assert torch.equal(logits(again.load().network), logits(one.network))
