"""How R drifts over the rounds of `iterations`: the same pairs scored by the round's own model and by the frozen base.

In the first round both are the base. Later the round's model is the last policy, which has learnt to please R; where
its R and the base's part ways, a scorer that follows the policy grades another thing than it did at the start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from dlma import csv_text
from dlma.checks.margin_facts import margin_facts


@dataclass(frozen=True)
class RoundDrift:
    """One round's R, nats. Two are None where either R has no spread to compare.

    sign_agreement: share of pairs where both models prefer the same answer, a tie of one as half
    rank_correlation: Spearman's rho of the two
    """

    round: int
    pairs: int
    current_mean: float
    current_sd: float
    frozen_mean: float
    frozen_sd: float
    mean_change: float
    sign_agreement: float | None
    rank_correlation: float | None


def drift(number: int, current: Sequence[float], frozen: Sequence[float]) -> RoundDrift:
    """A round's R by its own model and by the base, both (pairs,), nats."""
    ours, base = margin_facts(current, frozen, None, None), margin_facts(frozen, current, None, None)
    return RoundDrift(
        round=number,
        pairs=len(current),
        current_mean=ours.mean.value,
        current_sd=ours.sd,
        frozen_mean=base.mean.value,
        frozen_sd=base.sd,
        mean_change=sum(abs(a - b) for a, b in zip(current, frozen, strict=True)) / max(1, len(current)),
        sign_agreement=None if ours.sign_ties_half is None else ours.sign_ties_half.value,
        rank_correlation=None if ours.spearman is None else ours.spearman.value,
    )


def rounds_csv(rounds: Sequence[RoundDrift]) -> bytes:
    """One line a round."""
    return csv_text.table([field.name for field in dataclasses.fields(RoundDrift)], map(dataclasses.astuple, rounds))
