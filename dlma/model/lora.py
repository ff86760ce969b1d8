"""LoRA layers of PEFT with their products written out; what PEFT saves, merges and switches off stays its own.

Departs from PEFT, which adds (x A) B to a layer's result by way of three more tensors of that size, and as many in the
backward pass: here it is added in place. Layers that read one input (query, key and value; gate and up) are computed
together: their A are one product, and the input's gradient is gathered in one tensor. Equal to PEFT but for rounding;
where weights have fewer bits than the adapter, its products are made in theirs, as under autocast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dlma.functional.products import is_linear, linear, matmul
from dlma.model import original


class LoraLinear(Linear):
    """PEFT's layer, computed together with those that read the same input."""

    readers: Readers

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        own = args or kwargs or torch.is_autocast_enabled(x.device.type)
        result = None if own else self.readers.result(self, x)
        return super().forward(x, *args, **kwargs) if result is None else result

    @property
    def plain(self) -> bool:
        """Whether the result is W x + scale * B A x of one adapter, with W as it was, and nothing else."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or len(names) != 1 or names[0] in self.lora_variant:
            return False
        dropout = self.lora_dropout[names[0]]
        dropped = dropout.training and isinstance(dropout, nn.Dropout)
        frozen = not any(p.requires_grad for p in self.base_layer.parameters())
        return frozen and not dropped and self.lora_B[names[0]].bias is None

    @property
    def adapter(self) -> str:
        """The name of the one active adapter."""
        return next(name for name in self.active_adapters if name in self.lora_A)


class Readers:
    """Layers that read the same tensor: the first that is called computes the results of all."""

    def __init__(self, layers: list[LoraLinear]) -> None:
        self.layers = layers
        for layer in layers:
            layer.readers = self
        self._read: Tensor | None = None
        self._results: dict[int, Tensor] = {}

    def result(self, layer: LoraLinear, x: Tensor) -> Tensor | None:
        """What a layer makes of `x`, (..., its outputs), handed out once and not kept; None unless all are plain."""
        if x is not self._read or id(layer) not in self._results:
            self._read, self._results = None, {}
            if not all(one.plain for one in self.layers):
                return None
            self._read, self._results = x, dict(zip(map(id, self.layers), self._computed(x), strict=True))
        found = self._results.pop(id(layer))
        if not self._results:
            self._read = None
        return found

    def _computed(self, x: Tensor) -> Sequence[Tensor]:
        names = [layer.adapter for layer in self.layers]
        pairs = list(zip(self.layers, names, strict=True))
        return _Products.apply(
            x,
            [layer.scaling[name] for layer, name in pairs],
            *[layer.base_layer.weight for layer in self.layers],
            *[layer.base_layer.bias for layer in self.layers],
            *[layer.lora_A[name].weight for layer, name in pairs],
            *[layer.lora_B[name].weight for layer, name in pairs],
        )


def write_out(network: nn.Module) -> nn.Module:
    """Give each plain LoRA layer of a network the forward pass of this module; the network itself, changed."""
    layers = [m for m in network.modules() if type(m) is Linear and is_linear(m.base_layer)]
    groups = _by_input(network, layers) if layers else []
    for group in groups:
        Readers([_as_ours(layer) for layer in group])
    return network


def _as_ours(layer: Linear) -> LoraLinear:
    """The same layer, with this module's forward pass."""
    layer.__class__ = LoraLinear
    return cast(LoraLinear, layer)


@torch.no_grad()
def _by_input(network: nn.Module, layers: list[Linear]) -> list[list[Linear]]:
    """The layers, those together that read one tensor in a pass over one token; those that it does not reach, alone."""
    inputs: list[Tensor] = []  # kept, so that no two of them have one id
    found: dict[int, list[Linear]] = {}

    def note(layer: Linear, given: tuple) -> None:
        inputs.append(given[0])
        found.setdefault(id(given[0]), []).append(layer)

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        network(input_ids=torch.zeros(1, 1, dtype=torch.long, device=next(network.parameters()).device))
    except original.FAULTS as fault:
        original.reason_of(fault)
        found = {}
    finally:
        for hook in hooks:
            hook.remove()
    together = [group for group in found.values() if len(set(map(id, group))) == len(group)]
    reached = {id(layer) for group in together for layer in group}
    return [*together, *([layer] for layer in layers if id(layer) not in reached)]


class _Products(torch.autograd.Function):
    """x W^T + bias + scale * (x A^T) B^T for several layers; W and bias are frozen."""

    @staticmethod
    def forward(ctx, x, scales, *parts):
        weights, biases, downs, ups = _quarters(parts)
        flat = x.flatten(0, -2)
        down = torch.cat(downs).to(flat.dtype)
        low = flat @ down.t()
        results = []
        for part, weight, bias, up, scale in zip(low.split(_ranks(ups), 1), weights, biases, ups, scales, strict=True):
            result = linear(flat, weight, bias)
            result.addmm_(part, up.t().to(flat.dtype), alpha=scale)
            results.append(result.view(*x.shape[:-1], -1))
        ctx.shape, ctx.scales = x.shape, scales
        ctx.save_for_backward(flat, low, *weights, *downs, *ups)
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        flat, low, *parts = ctx.saved_tensors
        count = len(ctx.scales)
        weights, downs, ups = parts[:count], parts[count : 2 * count], parts[2 * count :]
        ranks, for_x, for_ups = _ranks(ups), None, []
        for_low = torch.empty_like(low)
        rows = zip(gradients, weights, ups, ctx.scales, low.split(ranks, 1), for_low.split(ranks, 1), strict=True)
        for gradient, weight, up, scale, part, for_part in rows:
            slope = gradient.flatten(0, -2)
            for_part.copy_(slope @ up.to(slope.dtype)).mul_(scale)
            for_ups.append((slope.t() @ part).mul_(scale).to(up.dtype))
            if ctx.needs_input_grad[0]:
                for_x = matmul(slope, weight) if for_x is None else for_x.add_(matmul(slope, weight))
        if for_x is not None:
            for_x = for_x.addmm_(for_low, torch.cat(downs).to(low.dtype)).view(ctx.shape)
        for_downs = (for_low.t() @ flat).to(downs[0].dtype).split(ranks)
        return for_x, None, *[None] * (2 * count), *for_downs, *for_ups


def _quarters(parts: tuple) -> list[tuple]:
    size = len(parts) // 4
    return [parts[i * size : (i + 1) * size] for i in range(4)]


def _ranks(ups: Sequence[Tensor]) -> list[int]:
    return [up.shape[1] for up in ups]
