"""The meter of forward and backward passes: tokens, padding, time, and the share of the machine's peak."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from dlma.functional.products import linear


class Meter:
    """Counts of what ran through an engine.

    tokens, slots: nodes computed, and places computed with padding; targets: response tokens counted
    sequences, groups: log-probs given, and the groups (pairs, answers) they belong to
    flops: of matrix products, shared prefixes once, without recomputation; a backward pass counts twice
    """

    def __init__(self) -> None:
        self.tokens = self.slots = self.targets = self.sequences = self.groups = self.flops = 0
        self.seconds = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the wall time of the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    def rates(self, peak: float) -> dict[str, float]:
        """Rates per second, the share of padding, and the share of the matmul peak (FLOP/s)."""
        seconds = max(self.seconds, 1e-9)
        return {
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            "tokens_per_s": round(self.tokens / seconds, 1),
            "pairs_per_s": round(self.groups / seconds, 2),
            "padding_share": round(1 - self.tokens / max(1, self.slots), 4),
            "matmul_peak_gflops": round(peak / 1e9, 1),
            "matmul_share": round(self.flops / seconds / peak, 4),
        }


def body_weights(network: torch.nn.Module, head: torch.nn.Module | None) -> int:
    """Weights that each token is multiplied with: all matrices but embeddings and head."""
    skipped = {id(m.weight) for m in network.modules() if isinstance(m, torch.nn.Embedding)}
    if head is not None:
        skipped |= {id(p) for p in head.parameters()}
    return sum(_unpacked(p) for p in network.parameters() if p.dim() > 1 and id(p) not in skipped)


def attention_width(config) -> int:
    """Layers times the width of all heads, which need not be the hidden size; config: of transformers."""
    heads = getattr(config, "num_attention_heads", None)
    own = heads and getattr(config, "head_dim", None)
    return config.num_hidden_layers * (heads * own if own else config.hidden_size)


def _unpacked(weight: torch.nn.Parameter) -> int:
    """Numbers in a matrix; one that is kept in 4 bits says in its state how many it stands for."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else state.shape.numel()


@cache
def matmul_peak(rows: int, width: int, inner: int, dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of the best of a few (rows, width) @ (width, inner) products, measured once per process and shape."""
    one = torch.randn(rows, width, device=device).to(dtype)
    other = torch.randn(inner, width, device=device).to(dtype)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        linear(one, other)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * rows * width * inner / (time.perf_counter() - start))
    return best


@cache
def copying_rate(device: torch.device) -> float:
    """Bytes per second of copying a large block, read and written: the best of a few, once per process."""
    one = torch.ones(1 << 26, dtype=torch.uint8, device=device)
    other = torch.empty_like(one)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        other.copy_(one)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * one.numel() / (time.perf_counter() - start))
    return best
