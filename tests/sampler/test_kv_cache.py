"""The cache and the attention of sampling: the same numbers as the fused kernel, and bits that are a row's own."""

import pytest
import torch
from small_models import small_model

from dlma.sampler.kv_cache import Slots, cache_width, row_attention, tile_attention


class Layer(torch.nn.Module):
    """What an attention function reads of the layer that calls it."""

    def __init__(self, groups):
        super().__init__()
        self.num_key_value_groups = groups


def tensors(rows, heads, groups, size, width):
    torch.manual_seed(0)
    return (
        torch.randn(rows, heads, 1, size),
        torch.randn(rows, heads // groups, width, size),
        torch.randn(rows, heads // groups, width, size),
    )


def mask(used, width):
    hidden = torch.arange(width)[None] >= torch.tensor(used)[:, None]
    return torch.zeros(len(used), 1, 1, width).masked_fill(hidden[:, None, None], torch.finfo(torch.float32).min)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_attention_of_one_token_equals_that_over_the_slots_it_may_see(groups):
    query, key, value = tensors(3, 8, groups, 16, 320)
    used = [5, 200, 320]
    out, _ = tile_attention(Layer(groups), query, key, value, mask(used, 320), scaling=0.3)
    for row, n in enumerate(used):
        for head in range(8):
            scores = key[row, head // groups, :n].double() @ query[row, head, 0].double() * 0.3
            expected = scores.softmax(0) @ value[row, head // groups, :n].double()
            torch.testing.assert_close(out[row, 0, head].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [8, 32, 64])
def test_a_row_attends_alike_at_every_width_and_in_every_place(threads, groups, size):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        query, key, value = tensors(16, 8, groups, size, 512)
        used = [5, 30, 64, 70, 100, 128, 150, 190, 192, 193, 200, 210, 220, 240, 255, 256]
        order = torch.randperm(16)
        wide, _ = tile_attention(Layer(groups), query, key, value, mask(used, 512), scaling=0.3)
        for width in (256, 320, 384, 448):
            seen = key[:, :, :width], value[:, :, :width]
            narrow, _ = tile_attention(Layer(groups), query, *seen, mask(used, width), scaling=0.3)
            moved = [part[order] for part in (query, *seen, mask(used, width))]
            elsewhere, _ = tile_attention(Layer(groups), *moved, scaling=0.3)
            assert torch.equal(narrow, wide)
            assert torch.equal(elsewhere, narrow[order])
    finally:
        torch.set_num_threads(before)


def test_the_cache_is_as_large_as_its_rows_and_slots_however_much_is_written():
    slots = Slots(4, cache_width(65))
    for start in range(0, 128, 16):
        slots.at_span(start, start + 16)
        part = torch.full((4, 2, 16, 8), float(start))
        keys, _ = slots.update(part, part, 0)
        assert keys.shape == (4, 2, start + 16, 8)
    for place in range(128):
        slots.at_places(torch.tensor([place, 0, 1, 127]), 128)
        slots.update(torch.ones(4, 2, 1, 8), torch.ones(4, 2, 1, 8), 0)
    assert slots.stored[0][0].shape == (4, 2, 128, 8)


def test_a_step_writes_each_row_at_its_own_place_only():
    slots = Slots(3, 64)
    slots.at_places(torch.tensor([0, 63, 5]), 64)
    new = torch.arange(1.0, 7.0).view(3, 2, 1, 1)
    keys, values = slots.update(new, -new, 0)
    expected = torch.zeros(3, 2, 64, 1)
    expected[0, :, 0, 0], expected[1, :, 63, 0], expected[2, :, 5, 0] = (
        torch.tensor(p) for p in ([1.0, 2], [3.0, 4], [5.0, 6])
    )
    assert torch.equal(keys, expected)
    assert torch.equal(values, -expected)


def test_a_model_gets_its_own_attention_back_even_after_an_error():
    model = small_model()
    with pytest.raises(KeyError), row_attention(model):
        assert model.causal.config._attn_implementation == "dlma_tile"
        raise KeyError
    assert model.causal.config._attn_implementation == "sdpa"


def test_the_room_of_a_cache_follows_the_width_and_what_lies_in_it_stays():
    slots = Slots(2, 192)
    slots.at_places(torch.tensor([3, 10]), 64)
    new = torch.arange(1.0, 5.0).view(2, 2, 1, 1)
    slots.update(new, -new, 0)
    assert slots.stored[0][0].shape == (2, 2, 64, 1)
    slots.at_places(torch.tensor([3, 70]), 128)
    keys, values = slots.update(new + 4, -new - 4, 0)
    assert keys.is_contiguous()
    assert keys[1, :, 10, 0].tolist() == [3.0, 4.0]
    assert keys[1, :, 70, 0].tolist() == [7.0, 8.0]
    for _ in range(40):
        slots.at_places(torch.tensor([3, 10]), 64)
        keys, values = slots.update(new, -new, 0)
    assert keys.shape == (2, 2, 64, 1)
    assert keys.is_contiguous()
    assert (keys[0, :, 3, 0].tolist(), values[1, :, 10, 0].tolist()) == ([1.0, 2.0], [-3.0, -4.0])


def test_a_row_copied_from_a_longer_cache_finds_room():
    source, slots = Slots(1, 256), Slots(2, 256)
    source.at_span(0, 200)
    part = torch.arange(200.0).view(1, 1, 200, 1)
    source.update(part, part, 0)
    slots.copy_row(1, source, 0, 190)
    slots.at_places(torch.tensor([0, 190]), 192)
    keys, _ = slots.update(torch.full((2, 1, 1, 1), 7.0), torch.zeros(2, 1, 1, 1), 0)
    assert keys[1, 0, :, 0].tolist() == [*range(190), 7.0, 0.0]
