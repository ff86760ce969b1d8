"""Training labels from scored pairs: margins per token, filters, orientation, a label budget, strength controls.

A pure function of the scored pairs, so every variant shares one scoring stage. It works in this order: R per token,
filter by |R|, orientation by the sign of R, budget, strength.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import torch

from dlma.errors import UserError
from dlma.functional.margin import constant, per_token_margin, shuffled
from dlma.functional.noise import row_key
from dlma.functional.reward import answer_reward
from dlma.ranges import Count, NotNegative, Seed
from dlma.records import Account, ScoredPair

WEAK = "|R| not above labels.min_margin"
BEYOND = "beyond labels.max_pairs"


class Labels:
    """Which answer of a scored pair is chosen, which pairs are kept, and with which margin.

    orientation: "scored" keeps the scorer's choice; "sign" chooses the answer that R prefers (R = 0 keeps the choice)
    per_token: R with each log-ratio divided by its own answer's length, nats per token
    min_margin: keep the pairs with |R| above it; null keeps all
    max_pairs: keep so many pairs, fixed by their ids, a subset of any larger budget; null keeps all
    strength: "margin" is R of chosen over rejected; "none" 0; "shuffled" R permuted over the pairs; "constant" its mean
    """

    def __init__(
        self,
        *,
        orientation: Literal["scored", "sign"],
        per_token: bool,
        min_margin: NotNegative | None,
        max_pairs: Count | None,
        strength: Literal["margin", "none", "shuffled", "constant"],
        seed: Seed,
    ) -> None:
        self.orientation = orientation
        self.per_token = per_token
        self.min_margin = min_margin
        self.max_pairs = max_pairs
        self.strength = strength
        self.seed = seed

    def apply(self, pairs: Sequence[ScoredPair]) -> tuple[list[ScoredPair], Account]:
        """The pairs to train on, in the order given, and the account of those left out."""
        account = Account(read=len(pairs))
        kept = self._per_token(pairs) if self.per_token else list(pairs)
        if self.min_margin is not None:
            limit = self.min_margin
            largest = max((abs(pair.margin) for pair in kept), default=0.0)
            kept = _keep(kept, lambda pair: abs(pair.margin) > limit, account, WEAK)
            if pairs and not kept:
                raise UserError(
                    f"labels.min_margin={limit:g}: none of {len(pairs):,} pairs is above it, the largest |R| is "
                    f"{largest:.3g}: lower it"
                )
        if self.orientation == "sign":
            kept = [_by_sign(pair) for pair in kept]
        if self.max_pairs is not None:
            order = sorted((row_key(0, pair.id, "budget", 0), pair.id) for pair in kept)
            taken = {name for _, name in order[: self.max_pairs]}
            kept = _keep(kept, lambda pair: pair.id in taken, account, BEYOND)
        account.kept = len(kept)
        return self._with_strength(kept) if kept else [], account

    def _per_token(self, pairs: Sequence[ScoredPair]) -> list[ScoredPair]:
        if any(pair.positive_under_positive is None for pair in pairs):
            raise UserError("labels.per_token: needs a scorer that gives R (scorer=self_reward, or its margin)")
        if not pairs:
            return []
        under = [
            torch.tensor([(getattr(p, f"positive_{side}"), getattr(p, f"negative_{side}")) for p in pairs]).double()
            for side in ("under_positive", "under_negative")
        ]
        lengths = torch.tensor([(len(p.positive_ids), len(p.negative_ids)) for p in pairs])
        margins = per_token_margin(answer_reward(*under), lengths).tolist()
        return [dataclasses.replace(pair, margin=margin) for pair, margin in zip(pairs, margins, strict=True)]

    def _with_strength(self, pairs: list[ScoredPair]) -> list[ScoredPair]:
        change: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "margin": lambda margin: margin,
            "none": torch.zeros_like,
            "shuffled": lambda margin: shuffled(margin, seed=self.seed),
            "constant": constant,
        }
        oriented = torch.tensor([_sign(pair) * pair.margin for pair in pairs], dtype=torch.float64)
        margins = change[self.strength](oriented).tolist()
        return [dataclasses.replace(p, margin=_sign(p) * value) for p, value in zip(pairs, margins, strict=True)]


def _sign(pair: ScoredPair) -> int:
    return 1 if pair.chosen == "positive" else -1


def _by_sign(pair: ScoredPair) -> ScoredPair:
    if pair.margin == 0:
        return pair
    return dataclasses.replace(pair, chosen="positive" if pair.margin > 0 else "negative")


def _keep(
    pairs: list[ScoredPair], wanted: Callable[[ScoredPair], bool], account: Account, reason: str
) -> list[ScoredPair]:
    kept = [pair for pair in pairs if wanted(pair)]
    for _ in range(len(pairs) - len(kept)):
        account.drop(reason)
    return kept
