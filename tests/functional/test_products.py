"""Products by oneDNN: the values and gradients of torch's own, and which of the two multiplies."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import linear as torchs

from dlma.functional import products


@pytest.fixture
def onednn(monkeypatch):
    """As on an AMD processor with AVX-512, wherever this runs."""
    if not products._has_it():
        pytest.skip("this torch has no such product")
    monkeypatch.setattr(products, "by_onednn", lambda: True)


@pytest.fixture
def torch_only(monkeypatch):
    monkeypatch.setattr(products, "by_onednn", lambda: False)


def random(*sizes, seed=0):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def close(found, wanted, terms):
    """Within the rounding of so many float32 terms of size about 1."""
    return torch.allclose(found.double(), wanted, atol=terms * 2**-23)


@pytest.mark.parametrize("rows, inner, outer", [(1, 3, 2), (64, 128, 352), (512, 96, 640), (256, 576, 64)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_is_that_of_float64(onednn, rows, inner, outer, bias):
    states, weight, added = random(rows, inner), random(outer, inner, seed=1), random(outer, seed=2)
    wanted = states.double() @ weight.double().t() + (added.double() if bias else 0)
    assert close(products.linear(states, weight, added if bias else None), wanted, inner)


def test_a_product_of_rows_of_rows_keeps_their_shape(onednn):
    states, weight = random(3, 128, 96), random(256, 96, seed=1)
    assert close(products.linear(states, weight), states.double() @ weight.double().t(), 96)


def test_matrices_of_any_strides_are_multiplied(onednn):
    one, other = random(256, 192).t(), random(256, 512, seed=1)[:, 64:448]
    assert close(products.matmul(one, other), one.double() @ other.double(), 256)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("frozen", [(), ("weight",), ("states",)])
def test_gradients_are_autograds(onednn, bias, frozen):
    plain = nn.Linear(128, 256, bias=bias).double()
    ours = copy.deepcopy(plain).float()
    ours.__class__ = products.OneDnnLinear
    plain.weight.requires_grad_("weight" not in frozen)
    ours.weight.requires_grad_("weight" not in frozen)
    pushed = random(2, 96, 256, seed=3)
    found = []
    for layer, kind in ((ours, torch.float32), (plain, torch.float64)):
        states = random(2, 96, 128).to(kind).requires_grad_("states" not in frozen)
        result = layer(states)
        result.backward(pushed.to(kind))
        found.append([result, states.grad, layer.weight.grad, layer.bias.grad if bias else None])
    for one, other in zip(*found, strict=True):
        assert (one is None and other is None) or close(one, other, 256)


def test_a_layer_computed_again_has_the_same_gradient(onednn):
    layer, states = products.OneDnnLinear(128, 256), random(128, 128).requires_grad_()
    own = torch.autograd.grad(layer(states).square().sum(), states)[0]
    again = torch.utils.checkpoint.checkpoint(layer, states, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(again.square().sum(), states)[0], own)


@pytest.mark.parametrize(
    "rows, inner, outer", [(16, 4096, 512), (4096, 16, 512), (4096, 512, 16), (64, 64, 64)], ids=str
)
def test_narrow_and_small_products_are_torchs_own(onednn, rows, inner, outer):
    states, weight = random(rows, inner), random(outer, inner, seed=1)
    assert torch.equal(products.linear(states, weight), torchs(states, weight))


@pytest.mark.parametrize("change", ["float64", "bfloat16", "autocast", "meta"])
def test_what_is_not_float32_on_a_cpu_is_torchs_own(onednn, change):
    layer = nn.Linear(256, 256)
    states = random(256, 256)
    if change in ("float64", "bfloat16"):
        layer, states = layer.to(getattr(torch, change)), states.to(getattr(torch, change))
    if change == "meta":
        layer, states = layer.to("meta"), states.to("meta")
    ours = products.quicken(nn.Sequential(copy.deepcopy(layer)))
    with torch.autocast("cpu", torch.bfloat16, enabled=change == "autocast"):
        wanted, found = layer(states), ours(states)
    assert (found.dtype, found.device, found.shape) == (wanted.dtype, wanted.device, wanted.shape)
    assert change == "meta" or torch.equal(found, wanted)


def test_plain_layers_alone_become_ours(onednn):
    class Other(nn.Linear):
        pass

    network = nn.Sequential(nn.Linear(4, 4), Other(4, 4), nn.LayerNorm(4))
    assert [type(m) for m in products.quicken(network)] == [products.OneDnnLinear, Other, nn.LayerNorm]
    assert [products.is_linear(m) for m in network] == [True, False, False] and products.is_linear(nn.Linear(2, 2))


def test_elsewhere_nothing_changes(torch_only):
    network = nn.Sequential(nn.Linear(256, 256))
    assert type(products.quicken(network)[0]) is nn.Linear
    states = random(256, 256)
    assert torch.equal(products.linear(states, network[0].weight), torchs(states, network[0].weight))


@pytest.mark.parametrize(
    "maker, capability, wanted",
    [("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", False), ("GenuineIntel", "AVX512", False)],
)
def test_the_processor_decides(monkeypatch, tmp_path, maker, capability, wanted):
    monkeypatch.setattr(products, "_CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {maker}\ncpu family\t: 26\n")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(products, "_has_it", lambda: True)
    assert products.maker() == maker
    assert products.by_onednn.__wrapped__() is wanted


def test_a_system_that_names_no_maker_keeps_torchs_way(monkeypatch, tmp_path):
    monkeypatch.setattr(products, "_CPU_INFO", tmp_path / "absent")
    monkeypatch.setattr("platform.processor", lambda: "AMD64 Family 26 Model 2 Stepping 1, AuthenticAMD")
    assert products.maker() == "AuthenticAMD"
    monkeypatch.setattr("platform.processor", lambda: "")
    assert products.maker() == "" and products.by_onednn.__wrapped__() is False
