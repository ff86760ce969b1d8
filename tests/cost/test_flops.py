"""Operations are those that torch counts, and those worked out by hand."""

import pytest
import torch
import yaml
from small_models import small_network
from source_tree import ROOT
from torch.utils.flop_counter import FlopCounterMode

from dlma.cost.flops import KINDS, Device, ModelSize, Workload, sampled, scored, trained, work_of
from dlma.errors import UserError
from dlma.model.meter import body_weights


def test_operations_are_those_that_torch_counts():
    network = small_network("llama", context=512)
    config, rows, context, answer = network.config, 3, 40, 8
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        states = network.model(torch.zeros(rows, context + answer).long()).last_hidden_state
        network.lm_head(states[:, -answer:])
    products = sum(n for name, n in counter.get_flop_counts()["Global"].items() if "mm" in str(name))
    load = scored([[context] * rows], [[answer] * rows])
    head = config.vocab_size * config.hidden_size
    shape = ModelSize(0, 0, body_weights(network, network.lm_head), head, 0, 0)
    assert load.operations(shape) == products
    attended = sum(range(1, context + answer + 1)) * rows
    assert load.seen == attended
    assert trained(context, [answer], rows, checkpointing=False).operations(shape) == 3 * products


def test_decoding_is_bound_by_bandwidth_or_by_operations():
    shape = ModelSize(0, 0, body=1000, head=0, attention=0, bytes=4000)
    load = Workload(rows=8, drawn=800.0)
    narrow = Device("", 0, rate=1e9, bandwidth=1e3, source="")
    slow = Device("", 0, rate=1e3, bandwidth=1e9, source="")
    share = dict(compute=0.5, bandwidth=0.25, rows=8, cache=100.0 * 10)
    fetched = {"compute": 0.0, "bandwidth": pytest.approx(100 * (4000 + 8 * 100 * 10) / (0.25 * 1e3))}
    assert load.seconds(shape, narrow, **share) == fetched
    assert load.seconds(shape, slow, **share) == {"compute": pytest.approx(2 * 1000 * 800 / (0.5 * 1e3))}


def test_a_forward_pass_is_counted_by_hand():
    shape = ModelSize(0, 0, body=100, head=30, attention=8, bytes=0)
    # rows of 3 + 2 and 1 + 4 tokens: 10 tokens, 6 answer tokens, 15 pairs of tokens each
    assert sampled([3, 1], [2, 4]).operations(shape) == 2 * (100 * 10 + 30 * 6 + 2 * 8 * (15 + 15))


def test_answers_share_their_context_and_contexts_share_nothing():
    found = scored([[3], [5]], [[2], [1]])
    assert found.read == (3 + 2 + 1) + (5 + 2 + 1) and found.targets == 2 * 3
    # attended: 3 + 2 tokens make 15 pairs, one more after 3 adds 4; 5 + 2 make 28, one more after 5 adds 6
    assert found.seen == 15 + 4 + 28 + 6
    assert found == Workload(1, 14.0, 0.0, 6.0, 53.0)
    assert scored([3, 5], [2, 1], times=7).seen == 7 * 53


def test_a_trained_row_counts_thrice_and_with_recomputation_four_times():
    shape = ModelSize(0, 0, body=100, head=30, attention=8, bytes=0)
    once = scored([[3]], [[2]]).operations(shape)
    assert trained([3], [[2]], 5, checkpointing=False).operations(shape) == 5 * 3 * once
    assert trained([3], [[2]], 5, checkpointing=True).operations(shape) == 5 * 4 * once


@pytest.mark.parametrize("group", ["pairs", "scorer", "objective", "reward"])
def test_every_shipped_component_says_what_it_computes(group):
    nodes = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "conf" / group).glob("*.yaml")}
    kinds = {name: work_of(node)["kind"] for name, node in nodes.items() if node.get("_target_")}
    assert kinds and set(kinds.values()) <= set(KINDS)


def test_a_component_that_says_something_else_is_refused_and_one_that_says_nothing_has_no_work():
    assert work_of({"_target_": "dlma.scorer.mine.Mine"}) == {}
    with pytest.raises(UserError, match="kind must be one of sample, score, train, rollouts, steer, none, not 'magic'"):
        work_of({"_target_": "dlma.scorer.mine.Mine", "_work_": {"kind": "magic"}})
