"""Reading contexts and decoding answers in passes of a fixed shape.

A `Reader` reads contexts in chunks of CHUNK tokens for READ_ROWS rows at a time; a `Tile` decodes a fixed number
of rows, one token each per pass. Both are always filled, with idle rows where need be, and what a pass computes
for a row (chunk bounds, cache slots, inner sums) follows from the row's own tokens, so that neither its neighbours
nor its place nor the moment it entered can change a bit of it. That holds for one and two threads; from three on
an elementwise kernel may cut a large tensor between two vectors and take the odd elements by a scalar formula that
rounds otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dlma.model.language import LanguageModel
from dlma.model.masks import FULL, additive, attention_kinds, tree_masks
from dlma.sampler.kv_cache import Slots, cache_width

CHUNK = 16
READ_ROWS = 16

Style = Literal["full", "slots"]  # the model takes a mask of (rows, 1, queries, slots), or one of (rows, slots)


def readable(context: Sequence[int]) -> int:
    """Tokens that are read beforehand: the last one of a context is the first that a tile decodes."""
    return len(context) - 1


class Reader:
    """Fills the slots of up to `rows` contexts; only with READ_ROWS of them a pass is a run's to the last bit."""

    def __init__(self, model: LanguageModel, capacity: int, style: Style, rows: int = READ_ROWS) -> None:
        self.model = model
        self.style = style
        self.rows = rows
        self.slots = Slots(rows, capacity)
        self._opening: dict[tuple[int, ...], Slots] = {}

    @torch.no_grad()
    def read(self, contexts: Sequence[Sequence[int]], shared: Sequence[int] = ()) -> None:
        """Put contexts[i], the last token left out, into row i of `slots`.

        shared: what all of them begin with, a multiple of CHUNK tokens; it is read once, whatever the calls
        """
        start = self._open(tuple(shared))
        longest = max(readable(context) for context in contexts)
        self.slots.make_room(-(-longest // CHUNK) * CHUNK)
        for chunk in range(start, longest, CHUNK):
            self._pass([context[chunk : min(chunk + CHUNK, readable(context))] for context in contexts], chunk)

    def _open(self, shared: tuple[int, ...]) -> int:
        if not shared:
            return 0
        if shared not in self._opening:
            for chunk in range(0, len(shared), CHUNK):
                self._pass([shared[chunk : chunk + CHUNK]], chunk)
            self._opening[shared] = Slots(1, len(shared))
            self._opening[shared].copy_row(0, self.slots, 0, len(shared))
        for row in range(self.rows):
            self.slots.copy_row(row, self._opening[shared], 0, len(shared))
        return len(shared)

    def _pass(self, parts: Sequence[Sequence[int]], start: int) -> None:
        end = start + CHUNK
        ids = torch.full((self.rows, CHUNK), self.model.pad_id)
        for row, part in enumerate(parts):
            ids[row, : len(part)] = torch.tensor(list(part), dtype=torch.int64)
        place = torch.arange(start, end)
        self.slots.at_span(start, end)
        position = place.expand(self.rows, -1).to(self.model.device)
        self.model.fill(ids.to(self.model.device), self._mask(place, end), position, self.slots)

    def _mask(self, place: Tensor, end: int):
        if self.style == "slots":
            return torch.ones(self.rows, end, dtype=torch.int64, device=self.model.device)
        device, dtype = self.model.device, self.model.dtype
        distance = (place[:, None] - torch.arange(end)[None]).to(device)[None]
        return tree_masks(distance >= 0, distance, attention_kinds(self.model.config), dtype)


class Tile:
    """Rows decoded side by side; each step gives every row its next logits."""

    def __init__(self, model: LanguageModel, rows: int, capacity: int, style: Style) -> None:
        self.model = model
        self.style = style
        self.slots = Slots(rows, capacity)
        self.token = torch.full((rows,), model.pad_id)
        self.place = torch.zeros(rows, dtype=torch.int64)
        self._moves = torch.zeros(rows, dtype=torch.int64)
        self._row = torch.arange(rows, device=model.device)
        self._windows = attention_kinds(model.config) if style == "full" else {FULL: None}
        hidden = torch.zeros(rows, 1, capacity, dtype=torch.bool, device=model.device)
        self._seen = {kind: additive(hidden, model.dtype) for kind in self._windows}

    def enter(self, row: int, context: Sequence[int], read: Slots, read_row: int) -> None:
        """Let a context that was read take a row, whoever had it before."""
        n = readable(context)
        self.slots.copy_row(row, read, read_row, n)
        self.token[row], self.place[row], self._moves[row] = context[-1], n, 1
        for kind, window in self._windows.items():
            self._seen[kind][row] = torch.finfo(self.model.dtype).min
            self._seen[kind][row, ..., 0 if window is None else max(0, n - window) : n] = 0

    def leave(self, row: int) -> None:
        """The row idles: it decodes a token of no account in its first slot."""
        self.token[row], self.place[row], self._moves[row] = self.model.pad_id, 0, 0

    @torch.no_grad()
    def step(self) -> Tensor:
        """Write each row's token, and return the logits after it, (rows, vocabulary)."""
        place = self.place.to(self.model.device)
        width = cache_width(int(self.place.max()) + 1)
        self.slots.at_places(place, width)
        token, position = self.token.to(self.model.device).unsqueeze(1), place.unsqueeze(1)
        if self.model.plain_head:
            return self.model.head(self.model.states(token, self._mask(place, width), position, self.slots)[:, -1])
        return self.model.full_logits(token, self._mask(place, width), position, self.slots)[:, -1]

    def advance(self, token: Tensor) -> None:
        """The drawn tokens are what each row decodes next."""
        self.token = token
        self.place += self._moves

    def _mask(self, place: Tensor, width: int):
        for kind, window in self._windows.items():
            mask = self._seen[kind]
            mask[self._row, 0, 0, place] = 0
            if window is not None:
                gone = place - window
                row = gone >= 0
                mask[self._row[row], 0, 0, gone[row]] = torch.finfo(mask.dtype).min
        masks = {kind: mask[..., :width] for kind, mask in self._seen.items()}
        if self.style == "slots":
            return (masks[FULL][:, 0, 0] == 0).long()
        return masks if len(masks) > 1 else next(iter(masks.values()))
