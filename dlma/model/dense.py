"""The dense layout: one padded row for each sequence, with the model's own mask and positions.

They lie padded side by side, or one at a time where padding changes what a row gets.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from dlma.errors import UserError
from dlma.model import original
from dlma.model.language import LanguageModel, is_sharded

_COMPARED = 8  # tokens at the end of each probed row


def dense_states(model: LanguageModel, ids: Tensor, lengths: Tensor) -> Tensor:
    """Last hidden states of right-padded rows, (rows, width, hidden); in the padding they say nothing.

    ids: (rows, width) int64; lengths: (rows,) int64
    """
    return _rows(model, model.states, ids, lengths)


def dense_logits(model: LanguageModel, ids: Tensor, lengths: Tensor) -> Tensor:
    """As `dense_states`, but logits by the model's own forward, (rows, width, vocabulary)."""
    return _rows(model, model.full_logits, ids, lengths)


def _rows(model: LanguageModel, run: Callable[[Tensor, Tensor | None], Tensor], ids: Tensor, lengths: Tensor) -> Tensor:
    if not reason_against_padding(model, ids.shape[1]):
        return run(ids, _mask(ids, lengths))
    alone = [run(ids[row : row + 1, :length], None) for row, length in enumerate(lengths.clamp_min(1).tolist())]
    return torch.cat([F.pad(one, (0, 0, 0, ids.shape[1] - one.shape[1])) for one in alone])


def _mask(ids: Tensor, lengths: Tensor) -> Tensor:
    place = torch.arange(ids.shape[1], device=ids.device)
    return (place[None, :] < lengths[:, None]).long()


@torch.no_grad()
def reason_against_padding(model: LanguageModel, width: int) -> str:
    """Why rows of up to so many tokens must stand alone, or nothing; compared once, and again for longer rows.

    raises: UserError where rows must stand alone and the layers' weights are spread over processes, which have to make
        equally many passes
    """
    width = min(width, model.context)
    covering = [reason for tokens, reason in sorted(model.padded.items()) if tokens >= width]
    if not covering:
        covering = [_compare(model, width)]
        model.padded[width] = covering[0]
    if covering[0] and any(map(is_sharded, model.network.parameters())):
        raise UserError(f"trainer.strategy=fsdp: {model.name} takes no padded rows ({covering[0]}): trainer=ddp")
    return covering[0]


def _compare(model: LanguageModel, width: int) -> str:
    """Rows of unequal length side by side, against each alone."""
    ids = original.random_row(model, width)
    rows = [ids, ids[: max(1, width // 2)], ids[:_COMPARED]]
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    padded = torch.tensor([row + [model.pad_id] * (width - len(row)) for row in rows], device=model.device)
    last = [min(_COMPARED, len(row)) for row in rows]
    wanted = [original.last_logits(model, row, n) for row, n in zip(rows, last, strict=True)]
    try:
        got = _ends(model, padded, lengths, last)
    except original.FAULTS as fault:
        return f"it takes no padded rows: {original.reason_of(fault)}"
    difference = max(original.relative(a, b) for a, b in zip(got, wanted, strict=True))
    if difference <= original.TOLERANCE[model.dtype]:
        return ""
    return f"padding changes its logits by {difference:.1e} (relative) on rows of up to {width} tokens"


def _ends(model: LanguageModel, ids: Tensor, lengths: Tensor, last: list[int]) -> list[Tensor]:
    """The last logits of each padded row."""
    run = model.states if model.plain_head else model.full_logits
    out = run(ids, _mask(ids, lengths))
    ends = [row[n - k : n] for row, n, k in zip(out, lengths.tolist(), last, strict=True)]
    return [model.head(end) for end in ends] if model.plain_head else ends
