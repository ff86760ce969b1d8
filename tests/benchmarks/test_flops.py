"""The counter of operations: against torch's own, and against enumeration."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaForCausalLM

from benchmarks import flops, peers, workload
from benchmarks.clock import Clock
from benchmarks.flops import Work
from benchmarks.gemm import products, rate
from benchmarks.shapes import SHAPES, Shape, config_of, shape_of

GROUPED = shape_of("tiny")
PLAIN = Shape("plain", 24, 40, 3, 3, 3, 8, 100, False)


def network(shape):
    config = config_of(shape)
    config._attn_implementation = "eager"  # so that every product is seen, forward and backward
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("shape", [GROUPED, PLAIN], ids=["grouped", "plain"])
def test_a_dense_pass_and_its_gradients_are_what_torch_counts(shape):
    model, ids = network(shape), torch.randint(shape.vocabulary, (2, 17))
    counter = FlopCounterMode(display=False)
    with counter:
        logits = model(input_ids=ids, use_cache=False).logits
    once = flops.forward(shape, 2, 17, targets=34)
    assert counter.get_total_flops() == once
    with counter:
        logits.sum().backward()
    assert counter.get_total_flops() == 2 * once  # the counter starts anew; the gradients are twice the pass


@pytest.mark.parametrize("name", ["tiny", "40M"])
def test_the_weights_of_a_shape_are_those_of_the_model(name):
    shape = shape_of(name)
    with torch.device("meta"):
        model = LlamaForCausalLM(config_of(shape))
    assert sum(p.numel() for p in model.parameters()) == shape.parameters


@pytest.mark.parametrize(("name", "billions"), [("1B", 1.24), ("7B", 6.74), ("8B", 8.03)])
def test_the_large_shapes_have_the_published_numbers_of_weights(name, billions):
    assert SHAPES[name].parameters / 1e9 == pytest.approx(billions, abs=0.005)


def test_a_shared_prefix_is_counted_once():
    sequences = [([1, 2, 3], [4, 5]), ([1, 2, 3], [6])]
    assert flops.apart(sequences) == Work(tokens=9, visible=15 + 10, targets=3)
    # 1 2 3 4 5 see 1+2+3+4+5 tokens; then only the 6, which sees four
    assert flops.shared(sequences) == Work(tokens=6, visible=15 + 4, targets=3)


def test_sequences_without_a_common_prefix_share_nothing():
    sequences = [([1, 2], [3]), ([2, 2], [3, 4])]
    assert flops.shared(sequences) == flops.apart(sequences)


def test_work_is_linear_in_tokens_attention_in_visible_and_head_in_targets():
    shape = Shape("x", 2, 3, 1, 1, 1, 2, 5, True)  # layer: 2*(2*2+2*2) + 3*2*3 = 34 weights
    assert shape.layer_weights == 34
    assert Work(1, 0, 0).forward(shape) == 2 * 34
    assert Work(0, 1, 0).forward(shape) == 4 * 2
    assert Work(0, 0, 1).forward(shape) == 2 * 2 * 5


def test_sampling_reads_all_but_the_last_token_and_draws_with_the_head():
    read, drawn = flops.sampling_work([[1, 2, 3], [4]], [2, 1])
    assert read == Work(tokens=2, visible=1 + 2, targets=0)
    assert drawn == Work(tokens=3, visible=(3 + 4) + 1, targets=3)


def test_sampling_takes_at_least_the_slower_of_products_and_memory():
    shape = Shape("x", 2, 3, 1, 1, 1, 2, 5, True)  # 34 weights of the layer and 10 of the head
    work = (Work(3, 0, 0), Work(4, 0, 4))
    by_products = (3 * 68 + 4 * 68 + 4 * 20) / 2.0
    assert flops.sampling_seconds(shape, work, rows=2, rate=2.0, reading=1e9) == by_products
    by_memory = 3 * 68 / 2.0 + 4 / 2 * 44 * 4 / 0.5  # two passes, each over all weights
    assert flops.sampling_seconds(shape, work, rows=2, rate=2.0, reading=0.5) == by_memory
    by_half = 3 * 68 / 2.0 + 4 / 2 * 44 * 2 / 0.25
    half = flops.sampling_seconds(shape, work, rows=2, rate=2.0, reading=0.25, bytes_each=2)
    assert half == by_half


def test_every_product_of_a_layer_is_among_those_whose_rate_is_taken():
    found = products(PLAIN, 16)
    assert (16, 24, 40) in found and (16, 40, 24) in found  # up and down, and each other's gradient
    assert (24, 16, 40) in found  # a weight's gradient
    assert (16, 24, 100) in found  # the head


def test_a_rate_is_operations_over_seconds():
    assert 1e6 < rate(64, 64, 64, seconds=0.01) < 1e13


def test_the_bound_against_the_official_way_is_what_torch_counts_of_it():
    pairs = workload.pairs_of(GROUPED, "imposed", 5)
    counter = FlopCounterMode(display=False)
    with counter:
        peers.official(network(GROUPED).eval(), pairs, Clock())
    least = flops.shared(s for pair in pairs for s in flops.scoring_sequences(pair)).forward(GROUPED)
    assert flops.official_bound(GROUPED, pairs, few=5) == pytest.approx(counter.get_total_flops() / least, rel=1e-9)
