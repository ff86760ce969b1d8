"""Where shards end: counts alone decide."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlma.records import Context
from dlma.trainer import cutting
from dlma.trainer.cutting import FEWEST, OPERATIONS, size, starts, tokens_of_a_shard

CONTEXT = Context(
    prompt_id="p",
    question="q",
    wording="w",
    category="",
    plain_ids=[1] * 3,
    positive_ids=[1] * 5,
    negative_ids=[1] * 7,
    dropped_turns=0,
)


def spans(sizes, *bounds):
    return [(one.start, one.stop) for one in cutting.spans(sizes, *bounds)]


def test_a_rows_size_is_that_of_its_ids_and_of_what_is_drawn():
    assert size(CONTEXT, 0) == 15 and size(CONTEXT, 10) == 45
    assert size(object(), 10) == 1


def test_a_minute_of_tokens_is_a_fixed_function_of_the_models_size():
    network = torch.nn.Linear(1000, 500, bias=False)
    assert tokens_of_a_shard(network, "cpu") == OPERATIONS / (2 * 500_000)
    assert tokens_of_a_shard(network, "gpu") is tokens_of_a_shard(None, "cpu") is None


def test_by_hand():
    tall = [10] * 100
    assert starts(tall, 40, None) == [0, 40, 80]
    assert starts(tall, 256, 500) == [0, 50]
    assert starts(tall, 256, 505) == [0, 50]
    assert starts(tall, 40, 500) == [0, 40, 80]
    assert starts(tall, 256, 1) == [0, FEWEST, 2 * FEWEST, 3 * FEWEST]
    assert starts([], 256, 500) == [0]
    cut = cutting.spans(tall, 40, None)
    assert [(one.index, one.size) for one in cut] == [(0, 400), (1, 400), (2, 200)]
    assert cutting.layout(cut) == {"rows": 100, "sizes": [40, 40, 20]}


@given(st.lists(st.integers(1, 50), max_size=200), st.integers(1, 100), st.integers(1, 3000))
def test_every_row_is_in_one_shard_and_no_shard_could_be_longer(sizes, most_rows, most_tokens):
    found = spans(sizes, most_rows, most_tokens)
    assert [row for one, end in found for row in range(one, end)] == list(range(len(sizes)))
    for one, end in found:
        rows, tokens = end - one, sum(sizes[one:end])
        assert rows <= most_rows and (tokens <= most_tokens or rows <= FEWEST)
        if end < len(sizes):
            assert rows == most_rows or (rows >= FEWEST and tokens + sizes[end] > most_tokens)


@pytest.mark.parametrize("parameters", [1_000_000, 4_000_000])
def test_shards_of_models_of_the_labs_size_are_cut_by_rows_alone(parameters):
    longest = 2 * (64 + 192) * 3
    assert starts([longest] * 600, 256, int(OPERATIONS / (2 * parameters))) == [0, 256, 512]
