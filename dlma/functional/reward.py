"""The self-reward of DLMA: how much likelier an answer is under the positive than the negative prompt."""

import math

import torch
from torch import Tensor


def answer_reward(logp_under_positive: Tensor, logp_under_negative: Tensor) -> Tensor:
    """Self-reward of one answer, r(a) = log pi(a|p+,q) - log pi(a|p-,q) (paper, section 1.2).

    logp_under_positive: (batch,) float32, nats, summed over response tokens
    logp_under_negative: (batch,) float32, nats, summed over the same tokens
    returns: (batch,) float32, nats; no division by length
    """
    return logp_under_positive - logp_under_negative


def self_reward_margin(
    positive_under_positive: Tensor,
    positive_under_negative: Tensor,
    negative_under_positive: Tensor,
    negative_under_negative: Tensor,
) -> Tensor:
    """The paper's R(q, a1, a2) = r(a1) - r(a2); swapping the answers, or the prompts, flips its sign.

    Each argument: (batch,) float32, nats; `negative_under_positive` is log pi(a2|p+,q).
    returns: (batch,) float32, nats
    """
    return answer_reward(positive_under_positive, positive_under_negative) - answer_reward(
        negative_under_positive, negative_under_negative
    )


def expected_points(logp: Tensor) -> Tensor:
    """sum_k k p(k) / sum_k p(k): the mean of 0, 1, ... points under the probabilities of a judge's verdicts.

    logp: (answers, points), nats, log-prob of each verdict, which need not sum to 1; returns: (answers,)
    """
    points = torch.arange(logp.shape[-1], dtype=logp.dtype, device=logp.device)
    return (logp.softmax(-1) * points).sum(-1)


def best_of_n_divergence(n: int) -> float:
    """KL(best of n || base) = log n - (n - 1)/n, nats per answer, where no two answers have the same reward.

    An upper bound otherwise (Beirami et al. 2024). n: at least 1; returns 0 for 1
    """
    return math.log(n) - (n - 1) / n
