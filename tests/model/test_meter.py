"""Rates: FLOPs by hand, padding counted, time shared out."""

import pytest
import torch
from small_models import small_model

from dlma.model.engine import Engine
from dlma.model.meter import Meter, body_weights, matmul_peak
from dlma.model.trees import Completion

PAIR = [Completion([0, 5, 6], [7, 8]), Completion([0, 5, 6], [9])]


def test_flops_of_a_pair_are_those_counted_by_hand():
    model = small_model()  # hidden 32, 2 layers, 4 heads of 8, 2 key-value heads, 48 inner, 40 tokens
    engine = Engine(model, layout="tree")
    engine.score([PAIR])
    body = 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48)
    assert body_weights(model.network, model.head_layer) == body
    nodes, seen, targets = 6, 1 + 2 + 3 + (4 + 5) + 4, 3
    assert engine.meter.flops == 2 * (body * nodes + 2 * 2 * 32 * seen + 40 * 32 * targets)


def test_a_backward_pass_counts_twice_a_forward_pass():
    model = small_model()
    scored, trained = Engine(model, layout="tree"), Engine(model, layout="tree")
    scored.score([PAIR])
    trained.response_logp(trained.collate(trained.plan([PAIR])))
    assert trained.meter.flops == 3 * scored.meter.flops


def test_padding_is_what_no_node_stands_on():
    engine = Engine(small_model(), layout="tree")
    engine.score([PAIR])
    assert engine.report()["padding_share"] == pytest.approx(1 - 6 / 16)


def test_rates_divide_by_the_time_and_the_peak():
    meter = Meter()
    meter.tokens, meter.slots, meter.groups, meter.flops, meter.seconds = 100, 125, 10, 4e9, 2.0
    rates = meter.rates(peak=4e9)
    assert (rates["tokens_per_s"], rates["pairs_per_s"], rates["padding_share"]) == (50, 5, 0.2)
    assert rates["matmul_share"] == 0.5


def test_the_peak_is_measured_once_per_shape():
    shape = (64, 32, 32, torch.float32, torch.device("cpu"))
    assert matmul_peak(*shape) == matmul_peak(*shape) > 0
