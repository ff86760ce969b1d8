"""The network's own forward pass over one row, as transformers defines it: the reference for every other layout.

Padding, prefix trees and caches are each compared with it on rows as long as those that are to come; where one
differs the next slower way is taken, and the reason is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlma.errors import UserError
from dlma.model import memory

if TYPE_CHECKING:
    from dlma.model.language import LanguageModel

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 2e-2}  # relative, on log-probs and logits
FAULTS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError)  # of a network's code
_SHORT = 8  # tokens that are enough to see whether a network looks ahead


def reason_of(fault: BaseException) -> str:
    """The first line of what a network said of the way it was run."""
    if memory.ran_out(fault):
        memory.release()
        return "memory ran out"
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0]


def random_row(model: LanguageModel, tokens: int) -> list[int]:
    """Ids without meaning, the same ones each time."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(model.config.vocab_size, (tokens,), generator=draw).tolist()


def rotary_turns(config) -> set[int]:
    """The lengths beyond which a network's rotary factors may be others (longrope, dynamic), by its config."""
    found = getattr(config, "rope_parameters", None) or {}
    kinds = [found, *(kind for kind in found.values() if isinstance(kind, dict))]
    held = [kind.get("original_max_position_embeddings") for kind in kinds]
    return {int(limit) for limit in (*held, getattr(config, "original_max_position_embeddings", None)) if limit}


def relative(one: Tensor, other: Tensor) -> float:
    """How far `one` is from `other`, by the norm of `other`."""
    return ((one - other).float().norm() / other.float().norm().clamp_min(1e-12)).item()


def last_logits(model: LanguageModel, ids: Sequence[int], last: int) -> Tensor:
    """The logits after the last tokens of a row alone, (last, vocabulary), by the network's own forward pass.

    raises: UserError where the network has no such row, or gives no numbers for it
    """
    try:
        logits = model.own_pass(ids, last).logits[0, -last:]
    except FAULTS as fault:
        if memory.ran_out(fault):
            memory.halved(len(ids), len(ids), 1)
        raise UserError(
            f"model.path: {model.name}: its own forward pass fails on a row of {len(ids)} tokens: {reason_of(fault)}"
        ) from None
    if (logits.isnan() | (logits == torch.inf)).any():
        raise UserError(f"model.path: {model.name}: {_why_no_numbers(model.network, len(ids))}")
    return logits


def _why_no_numbers(network: nn.Module, tokens: int) -> str:
    for name, parameter in network.named_parameters():
        if parameter.is_floating_point() and not parameter.isfinite().all():
            return f"its weights hold NaN or infinite values, first in {name}: take a sound copy"
    dtype = str(next(network.parameters()).dtype)[6:]
    return (
        f"its weights are finite, but its logits on a row of {tokens} tokens are not, in {dtype}: "
        "take a dtype of wider range (model.dtype=bfloat16 or float32)"
    )


def require_causal(model: LanguageModel) -> None:
    """Raise UserError for a network whose logits are no numbers, or depend on tokens that come after them."""
    vocabulary = model.config.vocab_size
    ids = [token % vocabulary for token in range(_SHORT)]
    before = last_logits(model, ids, _SHORT)[:-1]
    after = last_logits(model, [*ids[:-1], (ids[-1] + 1) % vocabulary], _SHORT)[:-1]
    if relative(after, before) > TOLERANCE[model.dtype]:
        raise UserError(
            f"model.path: {model.name}: no causal language model: a token of a row changes the logits before it "
            f"({type(model.causal).__name__}, is_decoder: {getattr(model.config, 'is_decoder', None)}); "
            "take a model that reads from left to right"
        )
