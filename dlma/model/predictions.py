"""Next-token distributions at the tokens of an answer, where the engine gives one log-prob."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dlma.model import trees
from dlma.model.dense import dense_logits, dense_states
from dlma.model.language import LanguageModel


def predictions(
    model: LanguageModel, sequences: Sequence[trees.Completion]
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The states that predict every response token, in order, and the head that turns them into logits.

    returns: (tokens, width) and a function to (tokens, vocabulary); for a head that is not plain, the logits
        themselves and the identity
    """
    ids, lengths, predictor = _padded(model, sequences)
    if model.plain_head:
        return dense_states(model, ids, lengths).flatten(0, 1).index_select(0, predictor), model.head
    logits = dense_logits(model, ids, lengths).flatten(0, 1).index_select(0, predictor)
    return logits, lambda same: same


def _padded(model: LanguageModel, sequences: Sequence[trees.Completion]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, (rows, width), the rows' lengths, and the flat places whose states predict a response token."""
    lengths = [len(s.context) + len(s.response) for s in sequences]
    width = trees.padded_width(max(lengths))
    ids = torch.full((len(sequences), width), model.pad_id)
    predictor: list[int] = []
    for row, sequence in enumerate(sequences):
        ids[row, : lengths[row]] = torch.tensor([*sequence.context, *sequence.response])
        first = row * width + len(sequence.context) - 1
        predictor += range(first, first + len(sequence.response))
    device = model.device
    return ids.to(device), torch.tensor(lengths, device=device), torch.tensor(predictor, device=device)
