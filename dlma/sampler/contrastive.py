"""Answers by contrastive decoding: each token from its distributions under two prompts at once.

Every answer holds the same row of two tiles, one that read p+ and one that read p-, and both are given what was drawn.
As in local.py, what an answer becomes follows from its own contexts and its own noise. Rows that no tile gets right
are decoded one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, get_args

import numpy as np
import torch
from torch import Tensor

from dlma.errors import no_room
from dlma.functional.noise import draw, uniform
from dlma.model.alone import GrowingRow, Way
from dlma.model.contrast import Contrast
from dlma.model.drawn import in_reach_of_float64
from dlma.model.language import LanguageModel
from dlma.model.work import work
from dlma.sampler.decode import READ_ROWS, Reader, Style, Tile
from dlma.sampler.kv_cache import cache_width, row_attention
from dlma.sampler.local import TILE, LocalSampler, Request, Sampled
from dlma.sampler.ways import way_of_decoding


class ContrastiveSampler:
    """Draws as `sampler` does, from the logits that `contrast` makes of two."""

    def __init__(self, sampler: LocalSampler, contrast: Contrast) -> None:
        self.sampler = sampler
        self.contrast = contrast

    def sample(
        self, model: LanguageModel, requests: Sequence[Request], negatives: Sequence[Sequence[int]]
    ) -> list[Sampled]:
        """One answer per request, in order.

        negatives: the contexts under p-, as the requests have those under p+
        raises: UserError when a row would outrun the model's context
        """
        if not requests:
            return []
        sides = [[request.context_ids for request in requests], list(negatives)]
        longest = max(len(context) for contexts in sides for context in contexts)
        room = longest + self.sampler.max_new_tokens
        if room > model.context:
            raise no_room(longest, self.sampler.max_new_tokens, model.context, model.name)
        way, found = way_of_decoding(model, room), []
        size = TILE if way in get_args(Style) else 1
        work().foresee(2 * len(requests) * room)
        for start in range(0, len(requests), size):
            part = slice(start, start + size)
            keys = np.array([request.key for request in requests[part]], dtype=np.uint64)
            found += self._drawn(model, keys, [contexts[part] for contexts in sides], way, room)
        return found

    def _drawn(
        self, model: LanguageModel, keys: np.ndarray, sides: list[list[Sequence[int]]], way: Style | Way, room: int
    ) -> list[Sampled]:
        answers: list[list[int]] = [[] for _ in keys]
        with row_attention(model):
            rows = [_rows(model, contexts, way, room) for contexts in sides]
            for step in range(self.sampler.max_new_tokens):
                positive, negative = (one.step()[: len(keys)] for one in rows)
                token = self._token(self.contrast.logits(positive, negative), uniform(keys, step))
                for answer, drawn in zip(answers, token.tolist(), strict=True):
                    if not self._ended(model, answer):
                        answer.append(drawn)
                work().did(2 * len(keys))
                if all(self._ended(model, answer) for answer in answers):
                    break
                for one in rows:
                    one.advance(token)
        return [Sampled(ids, ids[-1] in model.eos_ids) for ids in answers]

    def _token(self, logits: Tensor, noise: np.ndarray) -> Tensor:
        how, reached = self.sampler, in_reach_of_float64(logits)
        return draw(reached, noise, temperature=how.temperature, top_k=how.top_k, top_p=how.top_p).cpu()

    def _ended(self, model: LanguageModel, ids: list[int]) -> bool:
        return bool(ids) and (len(ids) == self.sampler.max_new_tokens or ids[-1] in model.eos_ids)


class _Tiled:
    """The rows of one side, side by side; those that have ended go on, and what they draw is of no account."""

    def __init__(self, model: LanguageModel, contexts: list[Sequence[int]], style: Style, room: int) -> None:
        width = cache_width(room)
        self.tile = Tile(model, TILE, width, style)
        self.pad = model.pad_id
        reader = Reader(model, width, style)
        for start in range(0, len(contexts), READ_ROWS):
            part = contexts[start : start + READ_ROWS]
            reader.read(part)
            work().did(sum(map(len, part)))
            for place, context in enumerate(part):
                self.tile.enter(start + place, context, reader.slots, place)

    def step(self) -> Tensor:
        return self.tile.step()

    def advance(self, token: Tensor) -> None:
        self.tile.advance(torch.nn.functional.pad(token, (0, TILE - len(token)), value=self.pad))


class _Alone:
    """The one row of a side that no tile takes."""

    def __init__(self, model: LanguageModel, context: Sequence[int], way: Way) -> None:
        self.row = GrowingRow(model, way)
        self.ids = list(context)

    def step(self) -> Tensor:
        return self.row.after(self.ids)

    def advance(self, token: Tensor) -> None:
        self.ids += token.tolist()


def _rows(model: LanguageModel, contexts: list[Sequence[int]], way: Style | Way, room: int) -> _Tiled | _Alone:
    if way in get_args(Style):
        return _Tiled(model, contexts, cast(Style, way), room)
    return _Alone(model, contexts[0], cast(Way, way))
