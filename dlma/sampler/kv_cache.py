"""The cache of keys and values that sampling works in, and the attention of one new token per row over it.

A token's slot is its position, so a row's cache says nothing of its neighbours: stale slots behind a row's end
are masked, and add exact zeros. On a CPU the fused kernel's sums depend on the thread that takes a row, and a
matrix product splits its inner sum at a length that depends on the width; `tile_attention` therefore uses batched
products whose inner sums have fixed bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from dlma.model.language import LanguageModel

WIDTH_STEP = 64
_BLOCK = 192  # a product over more terms is split by the library where it likes
_PATIENCE = 32  # passes; to move what a tile holds costs as much as a few of them
_NAME = "dlma_tile"
_UNKNOWN = ("softcap", "s_aux", "position_bias", "head_mask")


def cache_width(tokens: int) -> int:
    """The slots that rows of up to `tokens` tokens use: one of few, so that few shapes occur."""
    return -(-tokens // WIDTH_STEP) * WIDTH_STEP


class Slots(Cache):
    """Keys and values of a fixed number of rows, (rows, heads, room, head size) per layer.

    Before a forward pass `at_span` or `at_places` says where its tokens go; the pass sees the first `width` slots.
    The room follows the width, up to `capacity`: what a pass reads then lies in one piece, which the memory delivers
    up to three times as fast as pieces with gaps between them.
    """

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__(layers=[])
        self.rows = rows
        self.capacity = capacity
        self.stored: dict[int, tuple[Tensor, Tensor]] = {}
        self.width = self.room = 0
        self._ample = 0
        self._seen = 0
        self._place: Tensor | None = None
        self._index: dict[int, Tensor] = {}

    def at_span(self, start: int, end: int) -> None:
        """All rows write tokens start to end, and see no slot behind them."""
        self._fit(end)
        self._place, self._seen, self.width = None, start, end

    def at_places(self, place: Tensor, width: int) -> None:
        """Each row writes one token, at its own place, (rows,)."""
        self._fit(width)
        self._place, self._seen, self.width = place, width - 1, width
        self._index.clear()

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args, **kwargs):
        """Write the new tokens of a layer, and return what the pass may look at."""
        keys, values = self._layer(layer_idx, key_states, value_states)
        if self._place is None:
            keys[:, :, self._seen : self.width] = key_states
            values[:, :, self._seen : self.width] = value_states
        else:
            index = self._slot_index(keys.shape[1])
            keys.view(-1, keys.shape[3]).index_copy_(0, index, key_states.reshape(-1, keys.shape[3]))
            values.view(-1, values.shape[3]).index_copy_(0, index, value_states.reshape(-1, values.shape[3]))
        return keys[:, :, : self.width], values[:, :, : self.width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens before the pass, as far as masks that the model makes itself are concerned."""
        return self._seen

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """The slots that the pass sees, and the first of them."""
        return self.width, 0

    def copy_row(self, row: int, source: Slots, from_row: int, tokens: int) -> None:
        """Take over the first `tokens` slots of a row of another cache."""
        self.make_room(cache_width(tokens))
        for layer, (keys, values) in source.stored.items():
            own = self._layer(layer, keys, values)
            own[0][row, :, :tokens] = keys[from_row, :, :tokens]
            own[1][row, :, :tokens] = values[from_row, :, :tokens]

    def _slot_index(self, heads: int) -> Tensor:
        """The places of a step among all slots of all rows and heads, (rows * heads,)."""
        if heads not in self._index:
            assert self._place is not None
            first = torch.arange(self.rows * heads, device=self._place.device) * self.room
            self._index[heads] = first + self._place.repeat_interleave(heads)
        return self._index[heads]

    def _layer(self, index: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if index not in self.stored:
            self.stored[index] = self._empty(keys), self._empty(values)
        return self.stored[index]

    def make_room(self, tokens: int) -> None:
        """Room for rows of so many tokens, before they are written."""
        if tokens > self.room:
            self._resize(tokens)

    def _fit(self, width: int) -> None:
        """Room for a pass of this width: more at once, less after _PATIENCE passes that could do with less."""
        self._ample = self._ample + 1 if width < self.room else 0
        if width > self.room or self._ample > _PATIENCE:
            self._resize(width)

    def _resize(self, room: int) -> None:
        """Give every row so many slots; what lies in the first of them stays."""
        kept, self.room, self._ample = min(room, self.room), min(room, self.capacity), 0
        for layer, (keys, values) in self.stored.items():
            self.stored[layer] = self._moved(keys, kept), self._moved(values, kept)

    def _empty(self, part: Tensor) -> Tensor:
        return part.new_zeros(self.rows, part.shape[1], self.room, part.shape[3])

    def _moved(self, part: Tensor, kept: int) -> Tensor:
        new = self._empty(part)
        new[:, :, :kept] = part[:, :, :kept]
        return new


def tile_attention(
    module, query: Tensor, key: Tensor, value: Tensor, attention_mask, dropout=0.0, scaling=None, **kwargs
):
    """Attention of one token per row with inner sums that depend on the row alone; (rows, 1, heads, head size).

    Longer queries take the fused kernel: they are read in passes whose shape the row itself determines.
    """
    if query.shape[2] > 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if any(kwargs.get(name) is not None for name in _UNKNOWN):
        raise NotImplementedError("attention with " + " or ".join(_UNKNOWN))
    rows, heads, _, size = query.shape
    groups, width = key.shape[1], key.shape[2]
    asked = (query * (size**-0.5 if scaling is None else scaling)).reshape(rows * groups, heads // groups, size)
    scores = torch.bmm(asked, key.flatten(0, 1).transpose(1, 2)).view(rows, heads, 1, width)
    if attention_mask is not None:
        scores += attention_mask
    weights = scores.softmax(-1).view(rows * groups, heads // groups, width)
    values = value.flatten(0, 1)
    out = torch.bmm(weights[:, :, :_BLOCK], values[:, :_BLOCK])
    for start in range(_BLOCK, width, _BLOCK):
        out += torch.bmm(weights[:, :, start : start + _BLOCK], values[:, start : start + _BLOCK])
    return out.view(rows, 1, heads, -1), None


@contextmanager
def row_attention(model: LanguageModel) -> Iterator[None]:
    """Within it a CPU model that would use the fused kernel attends by `tile_attention`; others are left alone."""
    config = model.causal.config
    before = config._attn_implementation
    if before != "sdpa" or model.device.type != "cpu":
        yield
        return
    ALL_ATTENTION_FUNCTIONS.register(_NAME, tile_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, sdpa_mask)
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before
