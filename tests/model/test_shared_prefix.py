"""Trunks: what all trees share is computed once, and nothing changes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_model

from dlma.model import shared_prefix
from dlma.model.engine import Engine
from dlma.model.shared_prefix import common_trunk, without_trunk
from dlma.model.trees import Completion, build_tree

tokens = st.lists(st.integers(0, 2), min_size=1, max_size=5)
data_sets = st.lists(st.lists(st.builds(Completion, tokens, tokens), min_size=1, max_size=3), min_size=1, max_size=4)


def paths(tree):
    found = []
    for node in range(len(tree)):
        parent = tree.parent[node]
        found.append((*(found[parent] if parent >= 0 else ()), tree.ids[node]))
    return found


@pytest.fixture(autouse=True)
def short_trunks(monkeypatch):
    monkeypatch.setattr(shared_prefix, "SHORTEST", 1)


@given(data_sets)
def test_a_trunk_holds_the_common_prefixes_that_predict_nothing(groups):
    trees = [build_tree([Completion([7, *s.context], s.response) for s in group]) for group in groups]
    common = set.intersection(*(set(paths(tree)) for tree in trees))
    predicting = {paths(t)[t.parent[nodes[0]]] for t in trees for nodes in t.responses if nodes} | {
        paths(t)[t.parent[n]] for t in trees for nodes in t.responses for n in nodes
    }
    wanted = {p for p in common if not any(p[: i + 1] in predicting for i in range(len(p)))}
    trunk = common_trunk(trees)
    assert (set(paths(trunk)) if trunk else set()) == wanted


@given(data_sets)
def test_a_tree_is_its_trunk_and_its_branches(groups):
    trees = [build_tree([Completion([7, 8, *s.context], s.response) for s in group]) for group in groups]
    trunk = common_trunk(trees)
    if trunk is None:
        return
    roots = [(), *paths(trunk)]
    for tree in trees:
        branches = without_trunk(tree, trunk)
        found = []
        for node, anchor in enumerate(branches.anchor):
            parent = branches.tree.parent[node]
            found.append((*(found[parent] if parent >= 0 else roots[anchor + 1]), branches.tree.ids[node]))
            assert found[node][: len(roots[anchor + 1])] == roots[anchor + 1]
            assert branches.tree.depth[node] == len(found[node]) - 1
        assert sorted(found + paths(trunk)) == sorted(paths(tree))


def system_pairs(count=5, length=40):
    """Pairs under two long system texts and under none: nothing but the first token is common to all sides."""
    draw = torch.Generator().manual_seed(0)

    def ids(n):
        return torch.randint(3, 40, (n,), generator=draw).tolist()

    systems = [[0, *ids(length)], [0, *ids(length)], [0]]
    groups = []
    for i in range(count):
        question, answers = ids(3 + i), (ids(4), ids(2 + i))
        groups.append([Completion([*system, *question], answer) for system in systems for answer in answers])
    return groups


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "mistral", "gemma2"])
def test_log_probs_are_those_of_the_dense_path(kind):
    model, groups = small_model(kind), system_pairs()
    dense = Engine(model, layout="dense").score(groups)
    engine = Engine(model, token_budget=300)
    shared = engine.score(groups)
    assert engine.report()["shared_trunk_tokens"] >= 81
    for one, other in zip(shared, dense, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_a_trunk_is_kept_from_one_call_to_the_next_until_the_weights_change():
    model, groups = small_model(), system_pairs()
    engine = Engine(model)
    engine.score(groups)
    first = engine.trunk
    engine.score(groups)
    assert engine.trunk is first
    with torch.no_grad():
        next(model.network.parameters()).mul_(1.5)
    again = engine.score(groups)
    assert engine.trunk is not first
    assert again[0] == pytest.approx(Engine(model, layout="dense").score(groups)[0], rel=1e-5)


def test_each_trunk_token_is_computed_once():
    model, groups = small_model(), system_pairs(count=8)
    engine = Engine(model)
    engine.score(groups)
    trees = sum(len(build_tree(group)) for group in groups)
    assert engine.meter.tokens == trees - 7 * engine.report()["shared_trunk_tokens"]


def test_what_a_pass_adds_to_the_trunks_keys_is_not_kept():
    engine = Engine(small_model())
    engine.score(system_pairs())
    layer = engine.trunk.cache(2).layers[0]
    new = torch.ones(2, layer.keys.shape[1], 5, layer.keys.shape[3])
    keys, values = layer.update(new, 2 * new)
    n = len(engine.trunk.tree)
    assert keys.shape[2] == n + 5 and torch.equal(keys[:, :, :n], layer.keys)
    assert torch.equal(values[:, :, n:], 2 * new)
    assert engine.trunk.stored.layers[0].keys.shape[2] == layer.keys.shape[2] == n
