"""Margins of training: per token, shuffled over the pairs, or constant; and the ends of several scored answers."""

from collections.abc import Sequence

import torch
from torch import Tensor

_HALVINGS = 60  # of an interval of penalties; far below the differences of scores

Scored = tuple[Sequence[float], Sequence[int]]  # of the answers to one prompt, their scores and lengths in tokens


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


def best_and_worst(scored: Scored, *, penalty: float) -> tuple[int, int] | None:
    """The answers with the largest and the smallest score - penalty*length, the first of equal ones.

    None where all are equal, for then none is better
    """
    shaped = [score - penalty * length for score, length in zip(*scored, strict=True)]
    best, worst = max(shaped), min(shaped)
    return None if best == worst else (shaped.index(best), shaped.index(worst))


def balancing_penalty(prompts: Sequence[Scored]) -> float:
    """The penalty per token at which best answers are as long as worst ones, on average over the prompts; at least 0.

    Chen et al. 2024 (DICE), who take it from a grid. The mean difference of lengths falls with the penalty, by steps,
    so the place where it passes 0 is found by halves; of its two sides the one nearer to 0 is taken, and 0 where best
    answers are no longer than worst ones to begin with.
    """
    low, high = 0.0, 1.0
    if _longer(prompts, low) <= 0:
        return low
    while _longer(prompts, high) > 0:
        high *= 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _longer(prompts, middle) > 0 else (low, middle)
    return min(high, low, key=lambda penalty: abs(_longer(prompts, penalty)))


def _longer(prompts: Sequence[Scored], penalty: float) -> float:
    """By how many tokens best answers are longer than worst ones, on average; 0 where no prompt has both."""
    ends = [(lengths, best_and_worst((scores, lengths), penalty=penalty)) for scores, lengths in prompts]
    differences = [lengths[found[0]] - lengths[found[1]] for lengths, found in ends if found is not None]
    return sum(differences) / len(differences) if differences else 0.0
