"""Prefix trees: several token sequences in one row, with every common prefix computed once.

`[prompt | answer 1 | answer 2]` is the special case of training; scoring uses
`[question | affix+ | a1 | a2 | affix- | a1 | a2 | plain | a1 | a2]`. Position ids restart at each branch and
the attention mask hides everything that is not an ancestor, so each answer sees just its own context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Completion:
    """A context and a response, as token ids; the response's tokens are the ones that are counted."""

    context: Sequence[int]
    response: Sequence[int]


@dataclass(frozen=True)
class Tree:
    """Sequences merged by common prefix, in depth-first order.

    ids, depth, parent: one entry per node; parent of a root is -1; depth is the position id
    end: node j is an ancestor of i, or i itself, if and only if j <= i < end[j]
    responses: for each sequence, in the caller's order, the nodes of its response tokens
    """

    ids: list[int]
    depth: list[int]
    parent: list[int]
    end: list[int]
    responses: list[list[int]]

    def __len__(self) -> int:
        return len(self.ids)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading tokens two sequences share."""
    shared = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        shared += 1
    return shared


def build_tree(sequences: Sequence[Completion]) -> Tree:
    """Merge sequences into one tree; raises ValueError for an empty context, which nothing can predict from."""
    if any(len(s.context) == 0 for s in sequences):
        raise ValueError("a sequence has an empty context: there is no token to predict its first one from")
    tokens = [(*s.context, *s.response) for s in sequences]
    ids: list[int] = []
    depth: list[int] = []
    parent: list[int] = []
    end: list[int] = []
    responses: list[list[int]] = [[] for _ in sequences]
    path: list[int] = []
    previous: tuple[int, ...] = ()
    for index in sorted(range(len(tokens)), key=tokens.__getitem__):
        shared = common_prefix(previous, tokens[index])
        for node in path[shared:]:
            end[node] = len(ids)
        path = path[:shared]
        for token in tokens[index][shared:]:
            ids.append(token)
            depth.append(len(path))
            parent.append(path[-1] if path else -1)
            end.append(0)
            path.append(len(ids) - 1)
        responses[index] = path[len(sequences[index].context) :]
        previous = tokens[index]
    for node in path:
        end[node] = len(ids)
    return Tree(ids, depth, parent, end, responses)


@dataclass(frozen=True)
class Rows:
    """Trees as tensors, one tree a row, right-padded.

    ids, position: (rows, width) int64
    lengths: (rows,) int64, nodes in each row; end: (rows, width) int64, see `Tree.end`
    predictor: (targets,) int64, flat index row*width + node whose state predicts the target: the node's
        parent. This is the one place where the token shift of a causal model is made.
    target: (targets,) int64, the token to predict
    owner, slot: (targets,) int64, which sequence the target belongs to, and its place in that response
    sequences: number of sequences over all rows
    nodes, seen: number of nodes over all rows, and of (node, ancestor or self) pairs
    anchor: (rows, width) int64, the shared node above each node (shared_prefix.py), -1 in the padding; or None
    """

    ids: Tensor
    position: Tensor
    lengths: Tensor
    end: Tensor
    predictor: Tensor
    target: Tensor
    owner: Tensor
    slot: Tensor
    sequences: int
    nodes: int
    seen: int
    anchor: Tensor | None = None

    def to(self, device: torch.device) -> Rows:
        """The same rows on another device."""
        moved: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        return Rows(**moved)


def padded_width(longest: int, step: int = 16) -> int:
    """The row width for a longest row: the next multiple of `step`, so that few shapes occur."""
    return -(-longest // step) * step


def collate(trees: Sequence[Tree], pad_id: int, anchors: Sequence[Sequence[int]] | None = None) -> Rows:
    """Stack trees into rows. Padding is known by length alone, so `pad_id` may equal any real token.

    anchors: for trees without their trunk, each node's trunk node
    """
    width = padded_width(max(len(t) for t in trees))
    ids = _stacked([t.ids for t in trees], width, pad_id)
    position = _stacked([t.depth for t in trees], width, 0)
    end = torch.arange(1, width + 1).repeat(len(trees), 1)
    predictor, target, owner, slot = [], [], [], []
    sequences = 0
    for row, tree in enumerate(trees):
        end[row, : len(tree)] = torch.tensor(tree.end, dtype=torch.long)
        for nodes in tree.responses:
            predictor += [row * width + tree.parent[node] for node in nodes]
            target += [tree.ids[node] for node in nodes]
            owner += [sequences] * len(nodes)
            slot += [*range(len(nodes))]
            sequences += 1
    lengths = [len(t) for t in trees]
    columns = (lengths, predictor, target, owner, slot)
    counts, predictors, targets, owners, slots = (torch.tensor(c, dtype=torch.long) for c in columns)
    seen = sum(sum(t.depth) for t in trees) + sum(lengths)
    anchor = None if anchors is None else _stacked(anchors, width, -1)
    size = (sequences, sum(lengths), seen)
    return Rows(ids, position, counts, end, predictors, targets, owners, slots, *size, anchor)


def _stacked(rows: Sequence[Sequence[int]], width: int, filler: int) -> Tensor:
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows], dtype=torch.long)


def token_budget_batches(lengths: Sequence[int], budget: int, overhead: int = 64) -> list[list[int]]:
    """Indices grouped, longest first, so that rows times padded width stays within `budget` tokens.

    Of all ways to cut the sorted rows the one with the least padding, where each batch costs `overhead` tokens
    more. A row longer than the budget stands alone. Ties keep the caller's order, so the split is a function of
    the lengths, the budget and the overhead only.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    widths = [padded_width(lengths[i]) for i in order]
    cost, start_of = [0], [0]
    for stop in range(1, len(order) + 1):
        options = []
        for start in range(stop - 1, -1, -1):
            tokens = (stop - start) * widths[start]
            if tokens > budget and stop - start > 1:
                break
            options.append((cost[start] + tokens + overhead, start))
        best, start = min(options)
        cost.append(best)
        start_of.append(start)
    batches: list[list[int]] = []
    stop = len(order)
    while stop:
        batches.append(order[start_of[stop] : stop])
        stop = start_of[stop]
    return batches[::-1]
