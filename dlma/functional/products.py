"""Products of float32 matrices by oneDNN where the processor is AMD's and has AVX-512.

On a CPU torch gives such products to MKL, which keeps its kernels for AVX-512 to Intel's processors: on AMD's it runs
those of AVX2, at half the rate of oneDNN's or less (benchmarks/README.md). Which of them multiplies follows from the
processor and from the sizes alone, not from a clock: equal products give equal bits on one machine.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_CPU_INFO = Path("/proc/cpuinfo")
_NARROWEST = 64  # rows, columns or terms of a sum: with fewer, as with an adapter's rank, MKL is the faster
_SMALLEST = 5 << 19  # multiplications: what a smaller product saves goes into calling it


class OneDnnLinear(nn.Linear):
    """torch's layer; its products, and those of its gradient, are made as this module makes them."""

    def forward(self, input: Tensor) -> Tensor:
        if not _ours(input, self.weight) or torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        if torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad):
            return _Linear.apply(input, self.weight, self.bias)
        return linear(input, self.weight, self.bias)


def quicken(network: nn.Module) -> nn.Module:
    """Make plain linear layers of a network ours, where that is of use; the network itself, changed."""
    if by_onednn():
        for module in network.modules():
            if type(module) is nn.Linear:
                module.__class__ = OneDnnLinear
    return network


def is_linear(module: object) -> bool:
    """Whether a module is torch's linear layer, or ours, and no other class made of it."""
    return type(module) in (nn.Linear, OneDnnLinear)


def linear(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, without a gradient where oneDNN multiplies.

    states: (..., inner); weight: (outer, inner), of any strides; bias: (outer,)
    returns: (..., outer)
    """
    if not (_ours(states, weight) and _pays(states.numel() // states.shape[-1], *weight.shape)):
        return nn.functional.linear(states, weight, bias)
    product = torch.ops.mkldnn._linear_pointwise(states.flatten(0, -2), weight, bias, "none", [], "")
    return product.view(*states.shape[:-1], -1)


def matmul(one: Tensor, other: Tensor) -> Tensor:
    """one @ other, of matrices."""
    return linear(one, other.t())


@cache
def by_onednn() -> bool:
    """Whether float32 products are oneDNN's here."""
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return wide and maker() == "AuthenticAMD" and _has_it()


def maker() -> str:
    """The processor's maker, as it names itself; empty where the system does not say."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor().rpartition(" ")[2]
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


def _has_it() -> bool:
    """Whether this torch has the product, under the name by which torch's own compiler calls it."""
    one = torch.ones(2, 2)
    try:
        return torch.equal(torch.ops.mkldnn._linear_pointwise(one, one, None, "none", [], ""), 2 * one)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def _ours(states: Tensor, weight: Tensor) -> bool:
    plain = type(states) is Tensor and type(weight) in (Tensor, nn.Parameter)
    return plain and by_onednn() and states.device.type == "cpu" and states.dtype == weight.dtype == torch.float32


def _pays(rows: int, outer: int, inner: int) -> bool:
    return min(rows, outer, inner) >= _NARROWEST and rows * outer * inner >= _SMALLEST


class _Linear(torch.autograd.Function):
    """x W^T + bias."""

    @staticmethod
    def forward(ctx, states, weight, bias):
        ctx.save_for_backward(states, weight)
        return linear(states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        states, weight = ctx.saved_tensors
        wanted, slope = ctx.needs_input_grad, gradient.flatten(0, -2)
        for_states = matmul(slope, weight).view(states.shape) if wanted[0] else None
        for_weight = matmul(slope.t(), states.flatten(0, -2)) if wanted[1] else None
        return for_states, for_weight, slope.sum(0) if wanted[2] else None
