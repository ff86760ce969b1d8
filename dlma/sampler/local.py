"""Sampling answers whose content does not depend on how they were laid out.

Each row draws from its own counter-based noise. Contexts are read longest first; a row that has ended leaves its
tile at once and the next one that was read takes its place. decode.py keeps every pass to a fixed shape, so that on
a CPU an answer is the same to the last token however many others are decoded beside it, and in whatever order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from weakref import WeakKeyDictionary

import numpy as np
import torch

from dlma.errors import UserError, few
from dlma.functional.noise import draw, uniform
from dlma.model.language import LanguageModel
from dlma.model.weights import weights_at_fault
from dlma.sampler.decode import CHUNK, READ_ROWS, Reader, Style, Tile, readable
from dlma.sampler.kv_cache import cache_width, row_attention

TILE = 64  # rows of one pass on a CPU
_OPENING = 2 * CHUNK  # a shared opening shorter than this is not worth keeping
_STYLES: WeakKeyDictionary[LanguageModel, Style] = WeakKeyDictionary()


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

    def __init__(self, *, temperature: float, top_k: int, top_p: float, max_new_tokens: int, rows: int = TILE) -> None:
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.max_new_tokens = max_new_tokens
        self.rows = rows

    def for_policy(self) -> LocalSampler:
        """The sampler of a trained policy: the same."""
        return self

    def sample(
        self,
        model: LanguageModel,
        requests: Sequence[Request],
        progress: Callable[[int], object] = lambda tokens: None,
    ) -> list[Sampled]:
        """One answer per request, in order.

        raises: UserError when a row would outrun the model's context, or the model's logits are no numbers
        """
        if not requests:
            return []
        room = max(len(r.context_ids) + self._limit(r) for r in requests)
        if room > model.context:
            longest = max(len(r.context_ids) for r in requests)
            raise UserError(
                f"recipe.max_prompt_tokens + recipe.max_new_tokens: {longest} + {self.max_new_tokens} tokens "
                f"do not fit the {model.context} of {model.name}: lower one of them"
            )
        done: dict[int, Sampled] = {}
        with row_attention(model):
            style = _style(model, room)
            stream = _Stream(model, requests, cache_width(room), style)
            tiles = [_Rows(Tile(model, n, cache_width(room), style), used) for n, used in self._tiles(model)]
            while len(done) < len(requests):
                for tile in tiles:
                    for index, answer in self._advance(tile, stream):
                        done[index] = answer
                        progress(len(answer.ids))
        return [done[i] for i in range(len(requests))]

    def _limit(self, request: Request) -> int:
        return self.max_new_tokens if request.length is None else request.length

    def _tiles(self, model: LanguageModel) -> list[tuple[int, int]]:
        """Rows of each tile, and how many of them are used."""
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
        token = draw(logits, noise, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p).cpu()
        rows.steps += 1
        rows.tile.advance(token)
        values = token.tolist()
        for row, (index, request, ids) in list(rows.answers.items()):
            ids.append(values[row])
            finished = request.length is None and values[row] in stream.model.eos_ids
            if finished or len(ids) == self._limit(request):
                rows.leave(row)
                yield index, Sampled(ids, finished)


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

    def __init__(self, model: LanguageModel, requests: Sequence[Request], capacity: int, style: Style) -> None:
        self.model = model
        self.requests = requests
        self.reader = Reader(model, capacity, style)
        self._groups = iter(_groups([r.context_ids for r in requests]))
        self._read: list[tuple[int, int]] = []

    def next(self) -> tuple[int, Request, int] | None:
        """The next request's index, the request, and its row in the reader; None when all are decoded."""
        if not self._read:
            shared, members = next(self._groups, ((), []))
            if not members:
                return None
            self.reader.read([self.requests[i].context_ids for i in members], shared)
            self._read = [(index, row) for row, index in enumerate(members)][::-1]
        index, row = self._read.pop()
        return index, self.requests[index], row


def _groups(contexts: Sequence[Sequence[int]]) -> list[tuple[Sequence[int], list[int]]]:
    """Requests that are read together: an opening they share, and up to READ_ROWS of them, longest first."""
    openings = [tuple(c[:_OPENING]) if readable(c) >= _OPENING else () for c in contexts]
    count = Counter(openings)
    openings = [o if count[o] >= READ_ROWS else () for o in openings]
    groups = []
    order = sorted(range(len(contexts)), key=lambda i: (openings[i], -len(contexts[i])))
    for opening, members in groupby(order, key=lambda i: openings[i]):
        members = list(members)
        shared = _shared([contexts[i] for i in members]) if opening else ()
        groups += [(shared, members[start : start + READ_ROWS]) for start in range(0, len(members), READ_ROWS)]
    return groups


def _shared(contexts: list[Sequence[int]]) -> Sequence[int]:
    """The opening that all have in common, in whole chunks of what is read."""
    low, high = min(map(tuple, contexts)), max(map(tuple, contexts))
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(low, high)))
    common = min([common, *(readable(c) for c in contexts)])
    return low[: common // CHUNK * CHUNK]


@torch.no_grad()
def _style(model: LanguageModel, room: int) -> Style:
    """The kind of mask under which decoding over the cache equals reading the whole row, by trial."""
    if model in _STYLES:
        return _STYLES[model]
    n = max(8, min(room, (model.window or 0) + 3 * CHUNK, model.context))
    ids = torch.randint(model.causal.config.vocab_size, (n,), generator=torch.Generator().manual_seed(0)).tolist()
    place = torch.arange(n, device=model.device).unsqueeze(0)
    whole = torch.tensor([ids], device=model.device)
    expected = model.full_logits(whole, torch.ones_like(whole), place)[0, -3:].float()
    _require_numbers(model, expected, {})
    for style in ("full", "slots"):
        try:
            got = _trial(model, ids, style)
        except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, NotImplementedError):
            continue
        if ((got - expected).norm() / expected.norm()).item() < (1e-4 if model.dtype == torch.float32 else 5e-2):
            _STYLES[model] = style
            return style
    raise UserError(f"model.path: {model.name} keeps no cache of keys and values that the sampler can work with")


def _require_numbers(model: LanguageModel, logits: torch.Tensor, used: dict[int, str]) -> None:
    """Raises UserError where a row's logits hold nan, or infinity as the largest.

    used: the ids of the rows that matter, by row; none: all rows
    """
    largest = logits.amax(-1).cpu()
    bad = [row for row in used or range(len(largest)) if not largest[row].isfinite()]
    if bad:
        names = f" (rows {few([used[row] for row in bad])})" if used else ""
        raise UserError(f"{model.name}: its logits are no numbers{names}: {weights_at_fault(model.network)}")


def _trial(model: LanguageModel, ids: list[int], style: Style) -> torch.Tensor:
    """The last three logits of a row, decoded in a tile."""
    reader = Reader(model, cache_width(len(ids)), style)
    reader.read([ids[:-2]])
    tile = Tile(model, 8, cache_width(len(ids)), style)
    tile.enter(1, ids[:-2], reader.slots, 0)
    logits = [tile.step()[1].float()]
    for token in ids[-2:]:
        tile.advance(torch.full((8,), token))
        logits.append(tile.step()[1].float())
    return torch.stack(logits)


def flip_rate(one: Sequence[Sampled], other: Sequence[Sampled]) -> tuple[float, float]:
    """How far two layouts of the same requests differ: the share of answers, and of tokens that began to differ.

    After its first difference an answer goes its own way, so each differing answer counts one flipped token, and
    only the tokens up to it as looked at.
    """
    flipped, seen = 0, 0
    for a, b in zip(one, other, strict=True):
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a.ids, b.ids)))
        flipped += a.ids != b.ids
        seen += same + (a.ids != b.ids)
    return flipped / max(1, len(one)), flipped / max(1, seen)
