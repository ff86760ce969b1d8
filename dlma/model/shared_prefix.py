"""Shared prefixes: what all trees of a data set begin with (system text, both affixes before it), computed once.

A trunk is the tree of the prefixes common to all trees. Its keys and values come from one pass over one row;
each tree then runs without those nodes and sees them through its mask.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from dlma.model.language import LanguageModel
from dlma.model.masks import narrowed
from dlma.model.trees import Rows, Tree

SHORTEST = 32  # nodes under which a trunk does not pay
_Columns = tuple[list[int], list[int], list[int], list[int]]


@dataclass(frozen=True)
class Suffix:
    """A tree without its trunk.

    tree: what is left; parents that were trunk nodes are -1
    anchor: for each node of it, the trunk node that its path leaves the trunk at
    """

    tree: Tree
    anchor: list[int]


@dataclass(frozen=True)
class SharedPrefix:
    """A trunk with its keys and values.

    tree: its nodes; rows: the same as one row
    version: of the weights that it was computed with
    """

    tree: Tree
    rows: Rows
    stored: DynamicCache
    version: tuple[int, ...]

    @classmethod
    def computed(cls, model: LanguageModel, tree: Tree, rows: Rows, mask, version: tuple[int, ...]) -> SharedPrefix:
        """Run a trunk's row through the model. Every layer keeps all keys: windows are in the masks."""
        stored = DynamicCache()
        n = len(tree)
        with torch.no_grad(), model.precision():
            model.states(rows.ids[:, :n], narrowed(mask, n), rows.position[:, :n], stored)
        return cls(tree, dataclasses.replace(rows, position=rows.position[:, :n]), stored, version)

    def seen(self, anchors: Tensor) -> Tensor:
        """Which trunk nodes each node sees: its anchor and the anchor's ancestors.

        anchors: (rows, width) int64, -1 for none; returns (rows, width, trunk) bool
        """
        node = torch.arange(len(self.tree), device=anchors.device)
        end = self.rows.end[0, : len(self.tree)]
        return (node <= anchors.unsqueeze(-1)) & (anchors.unsqueeze(-1) < end)

    def cache(self, rows: int) -> DynamicCache:
        """The stored row seen as `rows` rows; the keys are shared, and what a pass adds lasts for its layer only."""
        wide = DynamicCache()
        wide.layers = [_Passing.of(cast(DynamicLayer, stored), rows) for stored in self.stored.layers]
        return wide


class _Passing(DynamicLayer):
    """Gives a layer the trunk's keys before its own, and keeps the trunk's only: no later pass wants the others."""

    @classmethod
    def of(cls, stored: DynamicLayer, rows: int) -> _Passing:
        """A layer of the trunk, seen as `rows` rows."""
        assert stored.keys is not None and stored.values is not None
        layer = cls()
        layer.dtype, layer.device, layer.is_initialized = stored.dtype, stored.device, True
        layer.keys = stored.keys.expand(rows, -1, -1, -1)
        layer.values = stored.values.expand(rows, -1, -1, -1)
        return layer

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


def common_trunk(trees: Sequence[Tree]) -> Tree | None:
    """The nodes that all trees have, predictors of response tokens left out; None where too few."""
    kept = _prune(trees[0], {-1: -1} | {n: n for n in range(len(trees[0]))}, trees[0])
    for tree in trees[1:]:
        if len(kept) - 1 < SHORTEST:
            return None
        kept = _prune(trees[0], kept, tree)
    nodes = sorted(node for node in kept if node >= 0)
    return _subtree(trees[0], nodes) if len(nodes) >= SHORTEST else None


def _prune(first: Tree, kept: dict[int, int], other: Tree) -> dict[int, int]:
    """Of the kept nodes of `first`, those that `other` has too; maps them to its nodes."""
    children = {(parent, token): node for node, (parent, token) in enumerate(zip(other.parent, other.ids, strict=True))}
    predicting = {other.parent[node] for nodes in other.responses for node in nodes}
    found = {-1: -1}
    for node in sorted(kept):
        if node < 0 or first.parent[node] not in found:
            continue
        twin = children.get((found[first.parent[node]], first.ids[node]))
        if twin is not None and twin not in predicting:
            found[node] = twin
    return found


def _subtree(tree: Tree, nodes: list[int]) -> Tree:
    """The nodes, closed under parents, as a tree without responses."""
    place = {node: i for i, node in enumerate(nodes)}
    return Tree(*_columns(tree, nodes, place), responses=[])


def _columns(tree: Tree, nodes: list[int], place: dict[int, int]) -> _Columns:
    """ids, depth, parent and end of some nodes of a tree, numbered anew; parents that are not among them are -1."""
    end = [bisect_left(nodes, tree.end[node]) for node in nodes]
    parent = [place.get(tree.parent[node], -1) for node in nodes]
    return [tree.ids[n] for n in nodes], [tree.depth[n] for n in nodes], parent, end


def without_trunk(tree: Tree, trunk: Tree) -> Suffix:
    """The tree's other nodes, and where each leaves the trunk."""
    children = {(parent, token): node for node, (parent, token) in enumerate(zip(trunk.parent, trunk.ids, strict=True))}
    twin: dict[int, int] = {-1: -1}
    place: dict[int, int] = {}
    anchor: list[int] = []
    for node, (parent, token) in enumerate(zip(tree.parent, tree.ids, strict=True)):
        if parent in twin and (twin[parent], token) in children:
            twin[node] = children[(twin[parent], token)]
        else:
            place[node] = len(place)
            anchor.append(twin[parent] if parent in twin else anchor[place[parent]])
    nodes = list(place)
    responses = [[place[node] for node in response] for response in tree.responses]
    return Suffix(Tree(*_columns(tree, nodes, place), responses), anchor)
