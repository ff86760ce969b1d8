"""How the rows of a stage are cut into shards: by their number, and on a CPU by their tokens too.

A shard has as many tokens as a model of that size does in about a minute on two cores. That is a count, never a clock:
where a shard ends decides which rows are computed together, hence last digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass

import torch

OPERATIONS = 1e13  # of a shard's products, two a weight and token: scored or sampled in about a minute on two CPU cores
FEWEST = 32  # rows of a shard that is cut by its tokens: their answers fill a sampler's tile


@dataclass(frozen=True)
class Span:
    """Where a shard lies among a stage's rows; size: tokens of its rows."""

    index: int
    start: int
    stop: int
    size: int


def size(row: object, drawn: int) -> int:
    """Tokens of a row: those of its contexts and answers, and `drawn` for each context where answers are drawn."""
    if not is_dataclass(row):
        return 1
    held = [getattr(row, field.name) for field in fields(row) if field.name.endswith("ids")]
    return max(1, sum(len(ids) + drawn for ids in held if isinstance(ids, list | tuple)))


def tokens_of_a_shard(network: torch.nn.Module | None, accelerator: str) -> int | None:
    """The most tokens of a shard; None where only the number of rows counts."""
    if network is None or accelerator != "cpu":
        return None
    return max(1, int(OPERATIONS / (2 * sum(weight.numel() for weight in network.parameters()))))


def starts(sizes: Sequence[int], most_rows: int, most_tokens: int | None) -> list[int]:
    """Where each shard begins: `most_rows` further on at the latest, or at the row that would be a token too many.

    most_tokens: of a shard, unless it has fewer than FEWEST rows; None: no such bound
    """
    found, tokens = [0], 0
    for place, tall in enumerate(sizes):
        rows = place - found[-1]
        full = most_tokens is not None and rows >= FEWEST and tokens + tall > most_tokens
        if rows == most_rows or full:
            found.append(place)
            tokens = 0
        tokens += tall
    return found


def spans(sizes: Sequence[int], most_rows: int, most_tokens: int | None) -> list[Span]:
    """The shards that begin at `starts`."""
    begin = starts(sizes, most_rows, most_tokens)
    ends = zip(begin, [*begin[1:], len(sizes)], strict=True)
    return [Span(index, one, end, sum(sizes[one:end])) for index, (one, end) in enumerate(ends)]


def layout(spans: Sequence[Span]) -> dict:
    """What of the shards is written beside them: those of another layout do not join up."""
    return {"rows": spans[-1].stop, "sizes": [span.stop - span.start for span in spans]}
