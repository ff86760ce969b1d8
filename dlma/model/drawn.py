"""Log-probs of answers under the distribution that they were drawn from, where that is not the model's own.

With a temperature other than 1, top_k or top_p an answer comes from another distribution than the one that `Engine`
scores. KL and entropy are averages over what was drawn, so they want that distribution's own log-probs: at each token
the logits over the temperature, cut, renormalised (functional.noise.drawn_logp).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlma.functional.noise import drawn_logp
from dlma.model import trees
from dlma.model.language import LanguageModel
from dlma.model.predictions import predictions

_PIECE = 256  # tokens whose logits are held in float64 at a time


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn."""

    temperature: float
    top_k: int
    top_p: float

    @property
    def plain(self) -> bool:
        """Whether that is the model's own distribution."""
        return self == Drawing(1.0, 0, 1.0)

    @property
    def uncut(self) -> Drawing:
        """The same with nothing ruled out; for temperature 0, the model's own distribution."""
        return Drawing(self.temperature or 1.0, 0, 1.0)


@torch.no_grad()
def drawn(
    model: LanguageModel,
    sequences: Sequence[trees.Completion],
    ways: Sequence[Drawing],
    *,
    token_budget: int,
    keep: bool = False,
) -> list[list[float]]:
    """For each sequence the log-prob of its response under every way of drawing, nats; -inf where one rules it out.

    keep: the responses were drawn in these ways, so rounding at the cut is not to rule them out
    """
    lengths = [len(s.context) + len(s.response) for s in sequences]
    found: dict[int, list[float]] = {}
    for batch in trees.token_budget_batches(lengths, token_budget):
        rows = [sequences[i] for i in batch]
        sizes = [len(row.response) for row in rows]
        target = torch.tensor([token for row in rows for token in row.response], device=model.device)
        with model.precision():
            states, head = predictions(model, rows)
            logp = [_in_pieces(states, head, target, way, keep).split(sizes) for way in ways]
        found |= {i: [parts[place].sum().item() for parts in logp] for place, i in enumerate(batch)}
    return [found[i] for i in range(len(sequences))]


def _in_pieces(states: Tensor, head: Callable[[Tensor], Tensor], target: Tensor, way: Drawing, keep: bool) -> Tensor:
    """Log-probs of the targets, (tokens,) float64 on the CPU."""
    settings = dict(temperature=way.temperature, top_k=way.top_k, top_p=way.top_p, keep_target=keep)
    pieces = zip(states.split(_PIECE), target.split(_PIECE), strict=True)
    return torch.cat([_logp(head(some), wanted, settings) for some, wanted in pieces])


def _logp(logits: Tensor, target: Tensor, settings: dict) -> Tensor:
    return drawn_logp(in_reach_of_float64(logits), in_reach_of_float64(target), **settings).cpu()


def in_reach_of_float64(tensor: Tensor) -> Tensor:
    """The tensor, on the CPU where its own device (Apple's) has no float64."""
    return tensor.cpu() if tensor.device.type == "mps" else tensor
