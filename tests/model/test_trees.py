"""Laws of prefix trees: nothing lost, nothing shared that is not common, ancestors and only ancestors seen."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlma.model.masks import additive, ancestors
from dlma.model.trees import Completion, build_tree, collate, token_budget_batches

tokens = st.lists(st.integers(0, 3), min_size=1, max_size=6)
sequences = st.lists(st.builds(Completion, tokens, st.lists(st.integers(0, 3), max_size=5)), min_size=1, max_size=5)


def path_of(tree, node):
    ids = []
    while node >= 0:
        ids.append(tree.ids[node])
        node = tree.parent[node]
    return ids[::-1]


@given(sequences)
def test_each_response_hangs_under_its_own_context(group):
    tree = build_tree(group)
    for sequence, nodes in zip(group, tree.responses, strict=True):
        assert [tree.ids[n] for n in nodes] == list(sequence.response)
        for i, node in enumerate(nodes):
            assert path_of(tree, node) == [*sequence.context, *sequence.response[: i + 1]]


@given(sequences)
def test_a_tree_has_one_node_per_distinct_prefix(group):
    prefixes = {
        tuple([*s.context, *s.response][: i + 1]) for s in group for i in range(len(s.context) + len(s.response))
    }
    assert len(build_tree(group)) == len(prefixes)


@given(sequences)
def test_the_mask_shows_exactly_the_ancestors(group):
    tree = build_tree(group)
    mask = additive(ancestors(collate([tree], 0).end), torch.float32)[0, 0]
    for node in range(len(tree)):
        above, at = set(), node
        while at >= 0:
            above.add(at)
            at = tree.parent[at]
        assert set((mask[node] == 0).nonzero().flatten().tolist()) == above


def test_padding_looks_only_at_itself():
    rows = collate([build_tree([Completion([1, 2], [3])])], 0)
    mask = additive(ancestors(rows.end), torch.float32)[0, 0]
    assert (mask[3:] == 0).nonzero().tolist() == [[i, i + 3] for i in range(13)]


def test_an_empty_context_is_refused():
    with pytest.raises(ValueError, match="empty context"):
        build_tree([Completion([], [1])])


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(16, 200))
def test_token_budget_is_kept_and_every_row_is_used_once(lengths, budget):
    batches = token_budget_batches(lengths, budget)
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    for batch in batches:
        width = -(-max(lengths[i] for i in batch) // 16) * 16
        assert len(batch) == 1 or len(batch) * width <= budget
