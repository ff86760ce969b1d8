"""Ways of decoding, and the trial that finds the fastest one that equals the network's own forward pass.

A tile is tried first, with both kinds of mask, then one row at a time over the network's own cache, then without a
cache. A way is tried once for each length, in steps of the cache's width; one that passed serves all shorter rows. So
the way that a row takes follows from the network and the row's own length, not from what was sampled before or beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from dlma.errors import UserError
from dlma.model import original
from dlma.model.alone import GrowingRow, Way
from dlma.model.engine import say_once
from dlma.model.language import LanguageModel
from dlma.model.masks import attention_kinds
from dlma.sampler.decode import Reader, Style, Tile
from dlma.sampler.kv_cache import cache_width, row_attention

_COMPARED = 3  # tokens decoded at the end of each row of a trial
_SHORTEST = 4  # tokens of the shortest row of a trial
_TILE = 8  # rows of the tile of a trial
_TOLD: dict[Style | Way, str] = {
    "full": "side by side",
    "slots": "side by side under the model's own masks",
    "own cache": "one at a time over the model's own cache",
    "whole rows": "one at a time, each read anew for every token",
}
_reasons: WeakKeyDictionary[LanguageModel, dict[tuple[Style | Way, int], str]] = WeakKeyDictionary()


def way_of_decoding(model: LanguageModel, room: int) -> Style | Way:
    """The fastest way that gives rows of up to `room` tokens what the network's own forward pass gives them.

    raises: UserError, with what came of each way, where none does
    """
    length = max(_SHORTEST, min(model.context, cache_width(room)))
    reasons = _reasons.setdefault(model, {})
    rows: list[list[int]] = []
    wanted: list[Tensor] = []
    for way in _TOLD:
        if any(one == way and tokens >= length and not reason for (one, tokens), reason in reasons.items()):
            return way
        if (way, length) not in reasons:
            rows = rows or _rows(model, length)
            wanted = wanted or [_wanted(model, row) for row in rows]
            reasons[way, length] = _reason_against(model, way, rows, wanted)
        if not reasons[way, length]:
            break
    told = "; ".join(f"{_TOLD[way]}: {reasons[way, length]}" for way in _TOLD if reasons.get((way, length)))
    if all(reasons.get((way, length)) for way in _TOLD):
        raise UserError(f"model.path: {model.name}: no way of sampling rows of {length} tokens is right: {told}")
    if way in get_args(Way):
        say_once(f"sampler: {model.name}: rows of {length} tokens are sampled {_TOLD[way]} ({told})")
    return way


def _rows(model: LanguageModel, length: int) -> list[list[int]]:
    """The rows of a trial: one as long as those to come, one half as long, one of hardly a token.

    And one that grows past the length at which rotary factors change: what was cached before has the former ones.
    """
    ids = original.random_row(model, length)
    turns = [
        ids[: limit + _COMPARED - 1] for limit in original.rotary_turns(model.config) if _SHORTEST < limit < length
    ]
    return [ids, ids[: max(_SHORTEST, length // 2)], ids[:_SHORTEST], *turns]


def _wanted(model: LanguageModel, row: list[int]) -> Tensor:
    """The last logits of a row; each by a pass that ends there, where a longer one has other rotary factors."""
    if not original.rotary_turns(model.config):
        return original.last_logits(model, row, _COMPARED)
    ends = range(len(row) - _COMPARED + 1, len(row) + 1)
    return torch.cat([original.last_logits(model, row[:end], 1) for end in ends])


@torch.no_grad()
def _reason_against(model: LanguageModel, way: Style | Way, rows: list[list[int]], wanted: list[Tensor]) -> str:
    """What speaks against a way, or nothing."""
    try:
        if way in get_args(Style):
            got = _in_a_tile(model, cast(Style, way), rows)
        else:
            got = [_alone(model, cast(Way, way), row) for row in rows]
    except original.FAULTS as fault:
        return original.reason_of(fault)
    difference = max(original.relative(one, other) for one, other in zip(got, wanted, strict=True))
    if difference <= original.TOLERANCE[model.dtype]:
        return ""
    return f"its logits differ by {difference:.1e} (relative) from those of the model's own forward pass"


def _in_a_tile(model: LanguageModel, style: Style, rows: list[list[int]]) -> list[Tensor]:
    """The last logits of each row, decoded in one tile.

    raises: NotImplementedError for layers that are no attention over keys and values
    """
    attention_kinds(model.config)
    width = cache_width(len(rows[0]))
    contexts = [row[: 1 - _COMPARED] for row in rows]
    with row_attention(model):
        reader, tile = Reader(model, width, style, len(rows)), Tile(model, _TILE, width, style)
        reader.read(contexts)
        for place, context in enumerate(contexts):
            tile.enter(place + 1, context, reader.slots, place)
        logits = [tile.step()]
        for step in range(1 - _COMPARED, 0):
            token = torch.full((_TILE,), model.pad_id)
            token[1 : len(rows) + 1] = torch.tensor([row[step] for row in rows])
            tile.advance(token)
            logits.append(tile.step())
    return list(torch.stack(logits, dim=1)[1 : len(rows) + 1])


def _alone(model: LanguageModel, way: Way, ids: Sequence[int]) -> Tensor:
    """The last logits of a row, decoded by itself."""
    row = GrowingRow(model, way)
    return torch.cat([row.after(ids[: len(ids) - left]) for left in range(_COMPARED - 1, -1, -1)])
