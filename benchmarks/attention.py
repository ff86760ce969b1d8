"""Three ways of attention over a step's pairs, one layer of a shape: time, and that they give the same.

`SDPA, trees`    what the engine does: torch's fused attention on prefix trees, with an additive mask of ancestors
`flex, trees`    torch's flex_attention on the same trees, with the same mask as a rule; compiled on a GPU
`flash, rows`    torch's flash attention, causal, each answer in a row of its own behind its prompt: nothing is shared
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from benchmarks.flops import training_sequences
from benchmarks.shapes import Shape
from dlma.model import trees
from dlma.model.masks import additive, ancestors
from dlma.records import Pair

Way = Callable[[], Tensor]
REPEATS = 10


class Layer:
    """Queries, keys and values of one layer for a step's pairs, on trees and on rows, drawn at random.

    place: (sequences, longest) int64, the node of the trees that each token of a row is; 0 in the padding
    """

    def __init__(self, shape: Shape, pairs: Sequence[Pair], device: torch.device, dtype: torch.dtype) -> None:
        groups = [[trees.Completion(*one) for one in training_sequences(pair)] for pair in pairs]
        planned = [trees.build_tree(group) for group in groups]
        self.rows = trees.collate(planned, 0).to(device)
        self.place, self.real = _paths(planned, self.rows.ids.shape[1])
        self.place, self.real = self.place.to(device), self.real.to(device)
        torch.manual_seed(0)
        heads = (shape.heads, shape.kv_heads, shape.kv_heads)
        size = (len(planned), self.rows.ids.shape[1], shape.head_dim)
        grad = device.type == "cuda"  # flex_attention has no backward pass on a CPU
        self.trees = [torch.randn(size[0], n, *size[1:], device=device, dtype=dtype, requires_grad=grad) for n in heads]
        self.alone = [self.on_rows(part).detach().requires_grad_(grad) for part in self.trees]

    def on_rows(self, part: Tensor) -> Tensor:
        """(trees, heads, width, size) as (sequences, heads, longest, size)."""
        flat = part.transpose(1, 2).flatten(0, 1)
        return flat[self.place].transpose(1, 2).contiguous()

    def ways(self) -> dict[str, tuple[Way, list[Tensor]]]:
        """Each way as a function of nothing, and the tensors whose gradients its backward pass makes."""
        mask = additive(ancestors(self.rows.end), self.trees[0].dtype)
        end, width = self.rows.end, self.rows.ids.shape[1]
        device = self.trees[0].device

        def seen(row, head, query, key):
            return (key <= query) & (query < end[row, key])

        block = create_block_mask(seen, len(end), None, width, width, device=device.type)
        flex = torch.compile(flex_attention) if device.type == "cuda" else flex_attention
        fused = torch.nn.functional.scaled_dot_product_attention
        groups = self.trees[0].shape[1] // self.trees[1].shape[1]

        def masked() -> Tensor:
            query, *others = self.trees
            repeated = [part.repeat_interleave(groups, 1) for part in others]  # as transformers does beside a mask
            return fused(query, *repeated, attn_mask=mask)

        def alone() -> Tensor:
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                return fused(*self.alone, is_causal=True, enable_gqa=True)

        return {
            "SDPA, trees": (masked, self.trees),
            "flex, trees": (lambda: flex(*self.trees, block_mask=block, enable_gqa=True), self.trees),
            "flash, rows": (alone, self.alone),
        }


def _paths(planned: Sequence[trees.Tree], width: int) -> tuple[Tensor, Tensor]:
    """Of every sequence its nodes from the root on, among those of all trees; and which places are no padding."""
    paths = []
    for row, tree in enumerate(planned):
        for nodes in tree.responses:
            path = list(nodes)
            while tree.parent[path[0]] >= 0:
                path.insert(0, tree.parent[path[0]])
            paths.append([row * width + node for node in path])
    longest = max(map(len, paths))
    place = torch.tensor([[*path, *[0] * (longest - len(path))] for path in paths])
    real = torch.tensor([[True] * len(path) + [False] * (longest - len(path)) for path in paths])
    return place, real


def outputs(layer: Layer) -> dict[str, Tensor]:
    """What each way gives every token of every sequence, (tokens, heads, size), without gradients."""
    found = {}
    with torch.no_grad():
        for name, (way, _) in layer.ways().items():
            out = way()
            out = out if name == "flash, rows" else layer.on_rows(out)
            found[name] = out.transpose(1, 2)[layer.real]
    return found


def milliseconds(layer: Layer) -> dict[str, float | str]:
    """Of a forward pass, and on a GPU the backward pass too, the best of a few; or why a way is not to be had."""
    found: dict[str, float | str] = {}
    for name, (way, parts) in layer.ways().items():
        try:
            found[name] = min(_timed(way, parts) for _ in range(REPEATS)) * 1e3
        except (RuntimeError, NotImplementedError) as reason:
            found[name] = (str(reason).strip().splitlines() or [type(reason).__name__])[0][:80]
    return found


def _timed(way: Way, parts: list[Tensor]) -> float:
    gpu = parts[0].device.type == "cuda"
    _wait(gpu)
    started = time.perf_counter()
    out = way()
    if gpu:
        torch.autograd.grad(out.sum(), parts)
    _wait(gpu)
    return time.perf_counter() - started


def _wait(gpu: bool) -> None:
    if gpu:
        torch.cuda.synchronize()
