"""Weights of an answer's tokens by their shares of R, as an option of DPO (TIS-DPO): `objective.token_weights`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dlma.errors import UserError
from dlma.functional.margin import token_weights
from dlma.ranges import NotNegative, Number, Positive
from dlma.records import ScoredPair
from dlma.training.preference_pair import sides


@dataclass(frozen=True)
class WeightedTokens:
    """Of a pair, chosen first: every token's weight, and both answers' weighted reference log-probs, nats."""

    weights: list[float]
    reference: list[float]


class TokenWeights:
    """k * exp(mu * clamp(r_t, reward_low, reward_high)) for the tokens of a chosen answer, -mu for those of a rejected.

    raises: UserError for pairs that were scored without their tokens
    """

    def __init__(self, *, k: Positive, mu: NotNegative, reward_low: Number, reward_high: Number) -> None:
        self.k = k
        self.mu = mu
        self.low = reward_low
        self.high = reward_high

    def of(self, pair: ScoredPair) -> WeightedTokens:
        """The weights of a pair's tokens, and what its reference comes to by them."""
        both = [self._side(pair, side, mu) for side, mu in zip(sides(pair), (self.mu, -self.mu), strict=True)]
        return WeightedTokens([weight for weights, _ in both for weight in weights], [total for _, total in both])

    def _side(self, pair: ScoredPair, side: str, mu: float) -> tuple[list[float], float]:
        rewards, reference = (getattr(pair, f"{side}_token_{what}") for what in ("rewards", "reference"))
        if rewards is None:
            raise UserError("objective.token_weights: the pairs have no R per token: scorer=self_reward_by_token")
        each = torch.tensor(rewards, dtype=torch.float64)
        weights = token_weights(each, k=self.k, mu=mu, low=self.low, high=self.high)
        return weights.tolist(), (weights * torch.tensor(reference, dtype=torch.float64)).sum().item()
