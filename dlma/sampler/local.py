"""The local sampler: answers do not depend on batch size, order or neighbours.

Each row draws from its own counter-based noise. Contexts are read longest first; a row that has ended leaves its
tile at once and the next one that was read takes its place. decode.py keeps every pass to a fixed shape, so that on
a CPU an answer is the same to the last token however many others are decoded beside it, and in whatever order.
Rows that no tile gets right are decoded one at a time (ways.py, alone.py).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from pathlib import Path
from typing import cast, get_args

import numpy as np
import torch

from dlma.errors import UserError, few, no_room
from dlma.functional.noise import draw, uniform
from dlma.model.alone import GrowingRow, Way
from dlma.model.drawn import in_reach_of_float64
from dlma.model.language import LanguageModel
from dlma.model.weights import weights_at_fault
from dlma.model.work import work
from dlma.ranges import Count, PositiveShare, Temperature, Whole
from dlma.sampler.decode import CHUNK, READ_ROWS, Reader, Style, Tile, readable
from dlma.sampler.kv_cache import cache_width, row_attention
from dlma.sampler.ways import way_of_decoding

TILE = 64  # rows of one pass on a CPU
_OPENING = 2 * CHUNK  # a shared opening shorter than this is not worth keeping


@dataclass(frozen=True)
class Request:
    """An answer to be sampled: its context, and the key of its noise (functional.noise.row_key).

    length: imposes the answer's length, whatever the model produces; for measuring with random weights only
    id: what the row is called in messages
    """

    key: int
    context_ids: Sequence[int]
    length: int | None = None
    id: str = ""


@dataclass(frozen=True)
class Sampled:
    """Sampled ids; they end with an EOS id if and only if the model produced it (`finished`)."""

    ids: list[int]
    finished: bool


class LocalSampler:
    """Sampling in process with a KV cache.

    rows: answers decoded side by side. A CPU pass always has TILE rows, of which this many are used; with more,
        several tiles take turns. On other devices a pass has just these rows.
    """

    def __init__(
        self, *, temperature: Temperature, top_k: Whole, top_p: PositiveShare, max_new_tokens: Count, rows: Count = TILE
    ) -> None:
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.max_new_tokens = max_new_tokens
        self.rows = rows
        self.compact = False

    def for_few(self) -> LocalSampler:
        """The same sampler with passes of no more rows than there are answers: what a person waits for.

        An answer's log-probs then differ from `sample`'s in their last digits, which seldom changes a token.
        """
        found = copy.copy(self)
        found.compact = True
        return found

    def sample(self, model: LanguageModel, requests: Sequence[Request]) -> list[Sampled]:
        """One answer per request, in order.

        raises: UserError when a row would outrun the model's context, or the model's logits are no numbers
        """
        if not requests:
            return []
        if max(map(self._room, requests)) > model.context:
            longest = max(len(r.context_ids) for r in requests)
            raise no_room(longest, self.max_new_tokens, model.context, model.name)
        work().foresee(sum(map(self._room, requests)))
        done: dict[int, Sampled] = {}
        for way, members in self._by_way(model, requests).items():
            chosen = [requests[i] for i in members]
            for index, answer in self._decoded(model, chosen, way):
                done[members[index]] = answer
                work().spare(self._limit(requests[members[index]]) - len(answer.ids))
        return [done[i] for i in range(len(requests))]

    def sample_trained(self, model: LanguageModel, requests: Sequence[Request], scratch: Path) -> list[Sampled]:
        """`sample` by a model that is being trained; scratch: a folder for what a server needs of it."""
        return self.sample(model, requests)

    def _decoded(
        self, model: LanguageModel, requests: Sequence[Request], way: Style | Way
    ) -> Iterator[tuple[int, Sampled]]:
        if way in get_args(Style):
            return self._side_by_side(model, requests, cast(Style, way))
        return self._one_by_one(model, requests, cast(Way, way))

    def _by_way(self, model: LanguageModel, requests: Sequence[Request]) -> dict[Style | Way, list[int]]:
        """Which requests are decoded in which way; the longest is asked first, as what serves it serves all."""
        members: dict[Style | Way, list[int]] = {}
        rooms = [self._room(request) for request in requests]
        for index in sorted(range(len(requests)), key=lambda i: -rooms[i]):
            members.setdefault(way_of_decoding(model, rooms[index]), []).append(index)
        return {way: sorted(found) for way, found in members.items()}

    def _side_by_side(
        self, model: LanguageModel, requests: Sequence[Request], style: Style
    ) -> Iterator[tuple[int, Sampled]]:
        width = cache_width(max(map(self._room, requests)))
        left = len(requests)
        with row_attention(model):
            stream = _Stream(model, requests, width, style, min(READ_ROWS, left) if self.compact else READ_ROWS)
            tiles = [_Rows(Tile(model, n, width, style), used) for n, used in self._tiles(model, left)]
            while left:
                for tile in tiles:
                    for index, answer in self._advance(tile, stream):
                        left -= 1
                        yield index, answer

    def _one_by_one(self, model: LanguageModel, requests: Sequence[Request], way: Way) -> Iterator[tuple[int, Sampled]]:
        for index, request in enumerate(requests):
            row = GrowingRow(model, way)
            ids: list[int] = []
            while not self._ended(model, request, ids):
                noise = uniform(np.array([request.key], dtype=np.uint64), np.array([len(ids)]))
                logits = row.after([*request.context_ids, *ids])
                _require_numbers(model, logits, {0: request.id})
                ids.append(int(self._drawn(logits, noise).item()))
                work().did(1)
            work().did(len(request.context_ids))
            yield index, self._answer(model, request, ids)

    def _drawn(self, logits: torch.Tensor, noise: np.ndarray) -> torch.Tensor:
        reached = in_reach_of_float64(logits)
        return draw(reached, noise, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p).cpu()

    def _ended(self, model: LanguageModel, request: Request, ids: Sequence[int]) -> bool:
        if not ids:
            return False
        return len(ids) == self._limit(request) or (request.length is None and ids[-1] in model.eos_ids)

    def _answer(self, model: LanguageModel, request: Request, ids: list[int]) -> Sampled:
        return Sampled(ids, request.length is None and ids[-1] in model.eos_ids)

    def _room(self, request: Request) -> int:
        return len(request.context_ids) + self._limit(request)

    def _limit(self, request: Request) -> int:
        return self.max_new_tokens if request.length is None else request.length

    def _tiles(self, model: LanguageModel, answers: int) -> list[tuple[int, int]]:
        """Rows of each tile, and how many of them are used."""
        if self.compact:
            rows = min(self.rows, TILE, answers)
            return [(rows, rows)]
        if model.device.type != "cpu":
            return [(self.rows, self.rows)]
        return [(TILE, min(TILE, self.rows - start)) for start in range(0, self.rows, TILE)]

    def _advance(self, rows: _Rows, stream: _Stream) -> Iterator[tuple[int, Sampled]]:
        """Fill the free rows of a tile, give each row one token, and hand out what has ended."""
        rows.fill(stream)
        if not rows.answers:
            return
        noise = uniform(rows.keys, rows.steps)
        logits = rows.tile.step()
        _require_numbers(stream.model, logits, {row: r.id for row, (_, r, _) in rows.answers.items()})
        token = self._drawn(logits, noise)
        rows.steps += 1
        rows.tile.advance(token)
        values = token.tolist()
        work().did(len(rows.answers))
        for row, (index, request, ids) in list(rows.answers.items()):
            ids.append(values[row])
            if self._ended(stream.model, request, ids):
                rows.leave(row)
                yield index, self._answer(stream.model, request, ids)


class _Rows:
    """Who is in a tile: by row, the request's index, the request and its answer so far."""

    def __init__(self, tile: Tile, used: int) -> None:
        self.tile = tile
        self.answers: dict[int, tuple[int, Request, list[int]]] = {}
        self.free = list(range(used))[::-1]
        self.keys = np.zeros(len(tile.token), dtype=np.uint64)
        self.steps = np.zeros(len(tile.token), dtype=np.int64)

    def fill(self, stream: _Stream) -> None:
        """Let waiting requests take the free rows."""
        while self.free and (waiting := stream.next()):
            row = self.free.pop()
            index, request, read_row = waiting
            self.tile.enter(row, request.context_ids, stream.reader.slots, read_row)
            self.answers[row] = (index, request, [])
            self.keys[row], self.steps[row] = request.key, 0

    def leave(self, row: int) -> None:
        """The row is free."""
        self.tile.leave(row)
        del self.answers[row]
        self.free.append(row)


class _Stream:
    """Requests in the order in which they are decoded, each with its context read."""

    def __init__(
        self, model: LanguageModel, requests: Sequence[Request], capacity: int, style: Style, rows: int
    ) -> None:
        self.model = model
        self.requests = requests
        self.reader = Reader(model, capacity, style, rows)
        self._groups = iter(_groups([r.context_ids for r in requests]))
        self._read: list[tuple[int, int]] = []

    def next(self) -> tuple[int, Request, int] | None:
        """The next request's index, the request, and its row in the reader; None when all are decoded."""
        if not self._read:
            shared, members = next(self._groups, ((), []))
            if not members:
                return None
            contexts = [self.requests[i].context_ids for i in members]
            self.reader.read(contexts, shared)
            work().did(sum(map(len, contexts)))
            self._read = [(index, row) for row, index in enumerate(members)][::-1]
        index, row = self._read.pop()
        return index, self.requests[index], row


def _groups(contexts: Sequence[Sequence[int]]) -> list[tuple[Sequence[int], list[int]]]:
    """Requests that are read together: an opening they share, and up to READ_ROWS of them, longest first."""
    openings = [tuple(c[:_OPENING]) if readable(c) >= _OPENING else () for c in contexts]
    count = Counter(openings)
    openings = [o if count[o] >= READ_ROWS else () for o in openings]
    groups: list[tuple[Sequence[int], list[int]]] = []
    order = sorted(range(len(contexts)), key=lambda i: (openings[i], -len(contexts[i])))
    for opening, alike in groupby(order, key=lambda i: openings[i]):
        members = list(alike)
        shared = _shared([contexts[i] for i in members]) if opening else ()
        groups += [(shared, members[start : start + READ_ROWS]) for start in range(0, len(members), READ_ROWS)]
    return groups


def _shared(contexts: list[Sequence[int]]) -> Sequence[int]:
    """The opening that all have in common, in whole chunks of what is read."""
    low, high = min(map(tuple, contexts)), max(map(tuple, contexts))
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(low, high)))
    common = min([common, *(readable(c) for c in contexts)])
    return low[: common // CHUNK * CHUNK]


def _require_numbers(model: LanguageModel, logits: torch.Tensor, used: dict[int, str]) -> None:
    """Raises UserError where a row's logits hold nan, or infinity as the largest.

    used: the ids of the rows that matter, by row; none: all rows
    """
    largest = logits.amax(-1).cpu()
    bad = [row for row in used or range(len(largest)) if not largest[row].isfinite()]
    if bad:
        names = f" (rows {few([used[row] for row in bad])})" if used else ""
        raise UserError(f"{model.name}: its logits are no numbers{names}: {weights_at_fault(model.network)}")
