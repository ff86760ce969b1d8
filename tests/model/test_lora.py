"""LoRA layers with their products written out, held against PEFT's own forward pass and autograd."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Linear
from safetensors.torch import load_file
from small_models import save_small, small_network

from dlma.model.language import LanguageModel
from dlma.model.load import Lora, ModelSpec
from dlma.model.lora import LoraLinear, write_out
from dlma.model.reference import Reference

IDS = torch.arange(24).view(2, 12)
BOTH = ["llama", "qwen2"]  # projections without and with a bias


def adapted(kind="llama", dtype=torch.float64, **options):
    """PEFT's own network, its B no longer zero."""
    network = small_network(kind).to(dtype).eval()
    torch.manual_seed(1)
    found = get_peft_model(network, LoraConfig(r=3, lora_alpha=7, target_modules="all-linear", **options)).eval()
    for name, weight in found.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return found


def loss_and_gradients(network):
    logits = network(input_ids=IDS).logits
    loss = logits.float().log_softmax(-1).square().mean()
    trained = [p for p in network.parameters() if p.requires_grad]
    return logits.detach(), torch.autograd.grad(loss, trained)


def apart(one, other):
    return ((one - other).float().norm() / other.float().norm()).item()


def require_equal(network, peers, most):
    (logits, gradients), (wanted, theirs) = loss_and_gradients(network), loss_and_gradients(peers)
    assert apart(logits, wanted) < most
    assert max(map(apart, gradients, theirs)) < most


@pytest.mark.parametrize("kind", [*BOTH, "gpt2"])  # whose layers are no nn.Linear: they stay PEFT's
def test_logits_and_gradients_are_pefts(kind):
    peers = adapted(kind)
    require_equal(write_out(copy.deepcopy(peers)), peers, 1e-5)  # adapters are float32


def test_rounding_in_few_bits_is_no_larger_than_pefts():
    peers = adapted(dtype=torch.bfloat16)
    exact = loss_and_gradients(copy.deepcopy(peers).double())
    ours, theirs = (_errors(loss_and_gradients(one), exact) for one in (write_out(copy.deepcopy(peers)), peers))
    assert ours[0] < 1.2 * theirs[0] and sum(ours[1:]) < 1.2 * sum(theirs[1:])


def _errors(found, exact):
    return [apart(found[0], exact[0]), *map(apart, found[1], exact[1])]


def test_layers_that_read_one_input_are_computed_together():
    network = write_out(adapted())
    names = {id(layer): name.split(".")[-1] for name, layer in network.named_modules()}
    groups = {id(m.readers): m.readers.layers for m in network.modules() if isinstance(m, LoraLinear)}
    found = sorted(sorted(names[id(layer)] for layer in group) for group in groups.values())
    assert found == sorted(2 * [["down_proj"], ["gate_proj", "up_proj"], ["k_proj", "q_proj", "v_proj"], ["o_proj"]])


def test_no_input_and_no_result_outlives_the_pass():
    network = write_out(adapted())
    network(input_ids=IDS)
    readers = [m.readers for m in network.modules() if isinstance(m, LoraLinear)]
    assert all(one._read is None and not one._results for one in readers)


def test_frozen_weights_get_no_gradient_and_inputs_below_the_first_adapter_none():
    network = write_out(adapted())
    seen = []
    first = network.base_model.model.model.layers[0].self_attn.q_proj
    first.register_forward_pre_hook(lambda layer, given: seen.append(given[0].requires_grad))
    network(input_ids=IDS).logits.sum().backward()
    assert seen == [False]
    assert {name for name, p in network.named_parameters() if p.grad is not None} == {
        name for name, _ in network.named_parameters() if "lora_" in name
    }


def test_the_adapter_switched_off_is_the_base():
    network = write_out(adapted())
    with network.disable_adapter():
        found = network(input_ids=IDS).logits
    assert torch.equal(found, small_network().double().eval()(input_ids=IDS).logits)


def _trained_base(network):
    network.base_model.model.model.layers[1].self_attn.k_proj.base_layer.weight.requires_grad_(True)


def _two_adapters(network):
    torch.manual_seed(2)
    network.add_adapter("other", LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    network.base_model.set_adapter(["default", "other"])


@pytest.mark.parametrize("change", [_trained_base, _two_adapters])
def test_what_is_no_single_adapter_on_frozen_weights_is_left_to_peft(change):
    peers = adapted()
    network = write_out(copy.deepcopy(peers))
    change(peers), change(network)
    require_equal(network, peers, 1e-5)
    left = [m.readers for m in network.modules() if isinstance(m, LoraLinear) and not m.plain]
    assert left and all(one.result(one.layers[0], torch.zeros(1, 32)) is None for one in left)


def test_a_merged_adapter_is_not_added_again():
    network = write_out(adapted())
    before = network(input_ids=IDS).logits
    network.merge_adapter()
    assert apart(network(input_ids=IDS).logits, before) < 1e-5
    network.unmerge_adapter()
    assert apart(network(input_ids=IDS).logits, before) < 1e-5


def test_a_copy_computes_with_its_own_adapter():
    network = write_out(adapted())
    before, twin = network(input_ids=IDS).logits, copy.deepcopy(network)
    for name, weight in twin.named_parameters():
        if "lora_B" in name:
            weight.data.zero_()
    assert torch.equal(network(input_ids=IDS).logits, before)
    assert apart(twin(input_ids=IDS).logits, small_network().double()(input_ids=IDS).logits) < 1e-6


def test_what_is_saved_is_what_peft_saves_and_loads(tmp_path):
    peers = adapted(dtype=torch.float32)
    network = write_out(copy.deepcopy(peers))
    peers.save_pretrained(tmp_path / "theirs"), network.save_pretrained(tmp_path / "ours")
    ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    loaded = PeftModel.from_pretrained(small_network(), tmp_path / "ours").eval()
    assert not any(isinstance(m, LoraLinear) for m in loaded.modules())
    assert apart(network(input_ids=IDS).logits, loaded(input_ids=IDS).logits) < 1e-5


def test_a_layer_that_the_probe_does_not_reach_stands_alone():
    class Half(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.other = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, input_ids):
            return self.used(torch.nn.functional.one_hot(input_ids, 4).float())

    network = write_out(get_peft_model(Half(), LoraConfig(r=2, target_modules=["used", "other"])))
    layers = [m for m in network.modules() if isinstance(m, Linear)]
    assert [layer.readers.layers for layer in layers] == [[layer] for layer in layers]


# Weights that models share


@pytest.fixture
def base(tmp_path):
    save_small(tmp_path / "model")
    return ModelSpec("m", tmp_path / "model", "float32").load()


def spec_of(base, tmp_path):
    return ModelSpec("m", tmp_path / "model", "float32", lora=Lora(3, 7.0, "all-linear"))


def pointers(network):
    return {p.data_ptr() for name, p in network.named_parameters() if "lora_" not in name}


def test_an_adapter_on_a_loaded_base_shares_its_weights_and_leaves_it_as_it_was(base, tmp_path):
    spec = spec_of(base, tmp_path)
    assert spec.differs_by_adapter(ModelSpec("m", tmp_path / "model", "float32"))
    before, alone = base.network(input_ids=IDS).logits, spec.load()
    model = spec.load(base)
    assert pointers(model.network) == pointers(base.network) and not pointers(alone.network) & pointers(base.network)
    for one in (model, alone):
        for name, weight in one.network.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(weight, 0.1)
    assert torch.equal(model.network(input_ids=IDS).logits, alone.network(input_ids=IDS).logits)
    assert not torch.equal(model.network(input_ids=IDS).logits, before)
    assert torch.equal(base.network(input_ids=IDS).logits, before)


def test_other_weights_bits_or_no_adapter_are_no_difference_by_adapter(tmp_path):
    base = ModelSpec("m", tmp_path, "float32")
    for other in (
        base,
        ModelSpec("m", tmp_path, "bfloat16", lora=Lora(3, 7.0, "all-linear")),
        base.trained(tmp_path / "p"),
    ):
        assert not other.differs_by_adapter(base)


def test_the_reference_of_an_adapter_that_is_trained_on_copies_the_adapter_alone(base, tmp_path):
    model = spec_of(base, tmp_path).load()
    model.adapter_is_new = False
    reference = Reference(model)
    assert pointers(reference.network) == pointers(model.network)
    for name, weight in model.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(weight, 0.1)
    with reference.model() as frozen:
        assert isinstance(frozen, LanguageModel)
        assert torch.equal(frozen.network(input_ids=IDS).logits, base.network(input_ids=IDS).logits)
