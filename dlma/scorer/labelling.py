"""What every labelled pair carries beside its label: the margin, and the reference log-probs in any case."""

from __future__ import annotations

import dataclasses
from typing import Literal

from dlma.functional.noise import row_key
from dlma.model.language import LanguageModel
from dlma.records import ScoredPair
from dlma.scorer.construction import Construction
from dlma.scorer.self_reward import SelfReward


def margin_scorer(
    model: LanguageModel, margin: Literal["none", "self_reward"], token_budget: int
) -> Construction | SelfReward:
    """The scorer whose margin is kept while its label is replaced: 0 for "none", R for "self_reward"."""
    if margin == "none":
        return Construction(model, token_budget=token_budget)
    return SelfReward(model, token_budget=token_budget)


def with_label(pair: ScoredPair, preference: float, seed: int) -> ScoredPair:
    """The pair with the positive answer chosen where `preference` is above 0; at exactly 0 a coin decides."""
    if preference == 0:
        preference = 1.0 if uniform(pair.id, seed, "tie") < 0.5 else -1.0
    return dataclasses.replace(pair, chosen="positive" if preference > 0 else "negative")


def uniform(pair_id: str, seed: int, purpose: str) -> float:
    """A number in [0, 1) that depends on the pair, the seed and what it is for."""
    return row_key(seed, pair_id, purpose, 0) / 2**64
