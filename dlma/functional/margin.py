"""Margins of training: per token, shuffled over the pairs, or constant."""

import torch
from torch import Tensor


def per_token_margin(rewards: Tensor, lengths: Tensor) -> Tensor:
    """r(a1)/|a1| - r(a2)/|a2|: the self-reward with each log-ratio divided by its own answer's length.

    rewards: (pairs, 2), nats, log pi(a|p+,q) - log pi(a|p-,q) of both answers (functional.reward.answer_reward)
    lengths: (pairs, 2), the tokens of each answer that were counted, EOS included where it was produced
    returns: (pairs,), nats per token; raises: ValueError for an answer without tokens
    """
    if (lengths < 1).any():
        raise ValueError("an answer has no token to divide by")
    each = rewards / lengths
    return each[:, 0] - each[:, 1]


def token_weights(rewards: Tensor, *, k: float, mu: float, low: float, high: float) -> Tensor:
    """k * exp(mu * clamp(r, low, high)): weights of an answer's tokens by their shares of R (Liu et al. 2024, TIS-DPO).

    rewards: (tokens,), nats, r = log pi(t|p+,q,...) - log pi(t|p-,q,...)
    mu: above 0 for a chosen answer, below 0 for a rejected one; 0 gives every token the weight k
    """
    return k * (mu * rewards.clamp(low, high)).exp()


def shuffled(margin: Tensor, *, seed: int) -> Tensor:
    """The margins in a random order over the pairs: the same values, tied to nothing. A control.

    margin: (pairs,), chosen over rejected; the order is a function of the seed and the number of pairs alone
    """
    order = torch.randperm(len(margin), generator=torch.Generator().manual_seed(seed))
    return margin[order]


def constant(margin: Tensor) -> Tensor:
    """Every pair gets the mean margin: strength without information. A control. margin: (pairs,), not empty."""
    return margin.mean().expand_as(margin)
