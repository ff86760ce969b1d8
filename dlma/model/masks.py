"""Attention masks of tree rows: ancestors and self, within the model's sliding windows, and nothing else.

Additive float masks, because a boolean one is silently wrong under eager attention. A sliding window is exact
here too: on an ancestor path the distance of two nodes is the difference of their depths.
"""

from __future__ import annotations

import torch
from torch import Tensor

FULL, SLIDING = "full_attention", "sliding_attention"


def attention_kinds(config) -> dict[str, int | None]:
    """The kinds of attention layers, each with its window in tokens (None: no window).

    raises: NotImplementedError for layers that are neither full nor sliding attention
    """
    window = getattr(config, "sliding_window", None)
    types = set(getattr(config, "layer_types", None) or [FULL if window is None else SLIDING])
    if types - {FULL, SLIDING}:
        raise NotImplementedError(f"layers of type {', '.join(sorted(types - {FULL, SLIDING}))}")
    if SLIDING in types and not window:
        raise NotImplementedError("sliding layers whose window is not stated")
    return {kind: window if kind == SLIDING else None for kind in sorted(types)}


def tree_masks(seen: Tensor, distance: Tensor | None, kinds: dict[str, int | None], dtype: torch.dtype):
    """One additive mask per kind of layer; just the tensor where there is one kind.

    seen: (rows, width, keys) bool, key is an ancestor or the node itself
    distance: (rows, width, keys) int64, how many tokens lie between the node and the key; ignored without windows
    returns: (rows, 1, width, keys) of `dtype`, or a dict of them
    """
    masks = {kind: additive(_within(window, seen, distance), dtype) for kind, window in kinds.items()}
    return next(iter(masks.values())) if len(masks) == 1 else masks


def _within(window: int | None, seen: Tensor, distance: Tensor | None) -> Tensor:
    if window is None:
        return seen
    assert distance is not None
    return seen & (distance < window)


def narrowed(masks, width: int):
    """The masks of the first `width` nodes among themselves."""
    if isinstance(masks, dict):
        return {kind: narrowed(mask, width) for kind, mask in masks.items()}
    return masks[:, :, :width, :width]


def ancestors(end: Tensor) -> Tensor:
    """Which nodes are ancestors of a node or the node itself, (rows, width, width) bool; `end` as in Rows."""
    node = torch.arange(end.shape[1], device=end.device)
    return (node[None, None, :] <= node[None, :, None]) & (node[None, :, None] < end[:, None, :])


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where seen, the lowest number elsewhere: (rows, 1, width, keys)."""
    nothing = torch.zeros((), dtype=dtype, device=seen.device)
    return torch.where(seen, nothing, nothing + torch.finfo(dtype).min).unsqueeze(1)
