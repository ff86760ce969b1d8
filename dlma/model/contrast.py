"""Contrastive decoding as a setting, and the log-probs of answers that were drawn by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlma.functional.contrast import contrasted_logits
from dlma.functional.noise import drawn_logp
from dlma.model import trees
from dlma.model.drawn import Drawing, in_reach_of_float64
from dlma.model.language import LanguageModel
from dlma.model.predictions import predictions
from dlma.ranges import PartialShare, Positive

_PIECE = 256  # tokens whose logits are held at a time


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """How the next token's distributions under p+ and p- are combined (functional/contrast.py).

    alpha: nothing leaves p+ as it is
    cutoff: tokens less likely under p+ than this share of the likeliest are ruled out; 0 rules out none
    """

    alpha: Positive
    cutoff: PartialShare

    def logits(self, positive: Tensor, negative: Tensor, keep: Tensor | None = None) -> Tensor:
        """The combined logits, (rows, vocabulary) float32; keep: tokens that were drawn from them."""
        return contrasted_logits(positive, negative, alpha=self.alpha, cutoff=self.cutoff, keep=keep)


@torch.no_grad()
def contrasted(
    model: LanguageModel,
    contrast: Contrast,
    rows: Sequence[tuple[trees.Completion, trees.Completion]],
    ways: Sequence[Drawing],
    *,
    token_budget: int,
) -> list[list[float]]:
    """For each answer, after p+ and after p-, its log-prob under every way of drawing from both, nats."""
    lengths = [sum(len(s.context) + len(s.response) for s in row) for row in rows]
    found: dict[int, list[float]] = {}
    for batch in trees.token_budget_batches(lengths, token_budget):
        some = [rows[i] for i in batch]
        sizes = [len(positive.response) for positive, _ in some]
        target = torch.tensor([token for positive, _ in some for token in positive.response], device=model.device)
        with model.precision():
            (first, head), (second, _) = (predictions(model, list(side)) for side in zip(*some, strict=True))
            pieces = zip(first.split(_PIECE), second.split(_PIECE), target.split(_PIECE), strict=True)
            logp = [
                _logp(contrast.logits(head(one), head(other), wanted), wanted, ways) for one, other, wanted in pieces
            ]
        parts = [torch.cat(of_way).split(sizes) for of_way in zip(*logp, strict=True)]
        found |= {i: [part[place].sum().item() for part in parts] for place, i in enumerate(batch)}
    return [found[i] for i in range(len(rows))]


def _logp(logits: Tensor, target: Tensor, ways: Sequence[Drawing]) -> list[Tensor]:
    logits, target = in_reach_of_float64(logits), in_reach_of_float64(target)
    return [
        drawn_logp(
            logits, target, temperature=way.temperature, top_k=way.top_k, top_p=way.top_p, keep_target=True
        ).cpu()
        for way in ways
    ]
