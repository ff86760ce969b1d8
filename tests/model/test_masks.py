"""Masks of tree rows: ancestors within the window, by the law of a plain row."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlma.model.masks import ancestors, attention_kinds, tree_masks
from dlma.model.trees import Completion, build_tree, collate

tokens = st.lists(st.integers(0, 3), min_size=1, max_size=6)
groups = st.lists(st.builds(Completion, tokens, tokens), min_size=1, max_size=4)


def path_of(tree, node):
    path = []
    while node >= 0:
        path.append(node)
        node = tree.parent[node]
    return path


@given(groups, st.integers(1, 6))
def test_a_window_shows_the_last_ancestors_of_each_node(group, window):
    tree = build_tree(group)
    rows = collate([tree], 0)
    distance = rows.position[:, :, None] - rows.position[:, None, :]
    mask = tree_masks(ancestors(rows.end), distance, {"sliding_attention": window}, torch.float32)[0, 0]
    for node in range(len(tree)):
        assert set((mask[node] == 0).nonzero().flatten().tolist()) == set(path_of(tree, node)[:window])


def test_a_model_with_two_kinds_of_layers_gets_a_mask_for_each():
    config = SimpleNamespace(sliding_window=2, layer_types=["full_attention", "sliding_attention"])
    rows = collate([build_tree([Completion([1, 2, 3], [4])])], 0)
    distance = rows.position[:, :, None] - rows.position[:, None, :]
    masks = tree_masks(ancestors(rows.end), distance, attention_kinds(config), torch.float32)
    assert (masks["full_attention"][0, 0, 3] == 0).sum() == 4
    assert (masks["sliding_attention"][0, 0, 3] == 0).sum() == 2


@pytest.mark.parametrize(
    "config, kinds",
    [
        (dict(), {"full_attention": None}),
        (dict(sliding_window=None), {"full_attention": None}),
        (dict(sliding_window=7), {"sliding_attention": 7}),
        (dict(sliding_window=7, layer_types=["full_attention"] * 2), {"full_attention": None}),
    ],
)
def test_kinds_of_layers_come_from_the_config(config, kinds):
    assert attention_kinds(SimpleNamespace(**config)) == kinds


@pytest.mark.parametrize("kind", ["linear_attention", "chunked_attention"])
def test_layers_that_a_mask_cannot_describe_are_refused(kind):
    with pytest.raises(NotImplementedError, match=kind):
        attention_kinds(SimpleNamespace(layer_types=["full_attention", kind]))
