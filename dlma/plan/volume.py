"""What a stage moves besides computing: bytes between devices, rows in the shared folder and in memory.

Rows are sized by one example of each record with mean lengths: as an Arrow table, which is what is compressed and
written, and as Python objects, which is what each process holds of the stage that it reads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, is_dataclass
from typing import Any

from dlma import records
from dlma.plan.dry_run import Sizes
from dlma.records import Answer, Context, Pair, ScoredPair

_CHARACTERS = 4  # of a token in text
_BOTH = ("positive", "negative")
_ID, _BEYOND_CACHE = "0" * 16, 257  # Python keeps one object of each smaller number, and every larger one anew


@dataclass(frozen=True)
class Volume:
    """Of a stage, in bytes: what each device sends; rows and weights that are written; rows that each process holds.

    shards: files that its rows lie in until all are there
    """

    sent: float = 0.0
    written: float = 0.0
    held: float = 0.0
    shards: int = 0


def _ids(tokens: float) -> list[int]:
    return list(range(_BEYOND_CACHE, _BEYOND_CACHE + round(tokens)))


def _text(tokens: float) -> str:
    return "x" * (_CHARACTERS * round(tokens))


def _context(sizes: Sizes) -> Context:
    plain, positive, negative = (_ids(sizes.contexts[side].mean) for side in ("plain", "positive", "negative"))
    return Context(_ID, _text(len(plain)), None, "", plain, positive, negative, 0)


def _pair(sizes: Sizes) -> Pair:
    context, ids, text = _context(sizes), _ids(sizes.answer.mean), _text(sizes.answer.mean)
    plain, positive, negative = context.plain_ids, context.positive_ids, context.negative_ids
    return Pair(
        _ID, _ID, context.question, "", plain, positive, negative, ids, list(ids), True, True, text, _text(len(ids))
    )


def _scored(sizes: Sizes) -> ScoredPair:
    under = [f"{one}_under_{other}" for one in _BOTH for other in _BOTH]
    logps: dict[str, Any] = dict.fromkeys([*under, *(f"{one}_reference" for one in _BOTH)], 0.5)
    return ScoredPair(**vars(_pair(sizes)), **logps, margin=0.5, chosen="positive")


def _answer(sizes: Sizes) -> Answer:
    mean = sizes.answer.mean
    return Answer(_ID, "", _text(sizes.contexts["plain"].mean), None, _text(mean), _ids(mean), True, 0.5, 0.5, 0.5)


_Example = Callable[[Sizes], object]
_WRITES: dict[str, _Example] = {
    "contexts": _context,
    "held_out": _context,
    "pairs": _pair,
    **dict.fromkeys(("scored", "scored_otherwise", "scored_before"), _scored),
    **dict.fromkeys(("base", "prompted", "aligned"), _answer),
}
_READS: dict[str, _Example] = {
    "pairs": _context,
    **dict.fromkeys(("scored", "scored_otherwise", "scored_before"), _pair),
    **dict.fromkeys(("reward", "policy"), _scored),
    **dict.fromkeys(("base", "prompted", "aligned"), _context),
}
TOGETHER = ("pairs", "scored", "scored_otherwise", "scored_before", "tokens", "policy", "base", "prompted", "aligned")
HELD_OUT = ("held_out", "base", "prompted", "aligned")


def rows_of(name: str, sizes: Sizes, per_prompt: int) -> int:
    """Rows of a stage, by what it is for: of held-out prompts, of training prompts, or of the pairs made of these."""
    if name in HELD_OUT:
        return sizes.held_out
    return sizes.train * (1 if name in ("prompts", "contexts") else per_prompt)


def row_bytes(name: str, sizes: Sizes) -> tuple[int, int]:
    """Bytes of a row that a stage writes, as Arrow, and of one that it reads, as Python objects; 0: not looked at."""
    write, read = _WRITES.get(name), _READS.get(name)
    return _arrow(write, sizes) if write else 0, _objects(read(sizes)) if read else 0


def _arrow(write: _Example, sizes: Sizes) -> int:
    row = write(sizes)
    return records.to_table(type(row), [row]).nbytes


def _objects(value: object) -> int:
    """Bytes of a value and of all that is its own; what rows share (None, small numbers, fields' names) is left out."""
    if value is None or isinstance(value, bool) or (isinstance(value, int) and value < _BEYOND_CACHE):
        return 0
    parts: Iterable = value if isinstance(value, list) else vars(value).values() if is_dataclass(value) else ()
    own = _whole(value) + (_whole(vars(value)) if is_dataclass(value) else 0)
    return own + sum(map(_objects, parts))


def _whole(value: object) -> int:
    """Bytes of an object as Python hands them out, by sixteen."""
    return -(-sys.getsizeof(value) // 16) * 16
