"""PPO on sampled answers: rewards per token, whitening, advantages, and the two clipped losses.

Answers are rows, padded on the right; `mask` is True for an answer's own tokens. What stands under False is 0 in
every result. Sources: Schulman et al. 2017 (PPO, arXiv 1707.06347), Schulman et al. 2016 (GAE, arXiv 1506.02438),
Stiennon et al. 2020 (arXiv 2009.01325) for the KL inside the reward.
"""

import torch
from torch import Tensor

_LEAST_VARIANCE = 1e-8


def token_rewards(score: Tensor, logp: Tensor, reference: Tensor, mask: Tensor, *, kl_weight: float) -> Tensor:
    """r_t = -kl_weight * (log pi(a_t) - log pi_ref(a_t)), plus the answer's score at its last token.

    score: (answers,), the reward model's; logp, reference: (answers, width), nats, of each sampled token
    returns: (answers, width); raises: ValueError for an answer without tokens
    """
    lengths = mask.sum(1)
    if (lengths < 1).any():
        raise ValueError("an answer has no token that could carry its score")
    rewards = torch.where(mask, -kl_weight * (logp - reference), 0.0)
    last = torch.arange(mask.shape[1], device=mask.device) == (lengths - 1).unsqueeze(1)
    return torch.where(last, rewards + score.unsqueeze(1), rewards)


def whitened(values: Tensor, mask: Tensor, *, shift_mean: bool) -> Tensor:
    """(v - m) / sd, plus m again where `shift_mean` is off; m and sd over all counted values (n - 1 in sd).

    values: (answers, width); returns the same shape
    raises: ValueError for fewer than two counted values
    """
    kept = values[mask]
    if len(kept) < 2:
        raise ValueError("whitening needs at least two values")
    mean, variance = kept.mean(), kept.var(correction=1)
    scaled = (values - mean) * (variance + _LEAST_VARIANCE).rsqrt()
    return torch.where(mask, scaled if shift_mean else scaled + mean, 0.0)


def advantages(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> Tensor:
    """GAE: A_t = d_t + gamma*lam * A_{t+1}, d_t = r_t + gamma * V_{t+1} - V_t; V and A are 0 after the last token.

    rewards, values: (answers, width), values of the states before each token; returns: (answers, width)
    """
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    after = torch.zeros_like(values[:, 0])
    value_after, found = after, []
    for t in reversed(range(values.shape[1])):
        after = rewards[:, t] + gamma * value_after - values[:, t] + gamma * lam * after
        value_after = values[:, t]
        found.append(after)
    return torch.stack(found[::-1], dim=1)


def policy_losses(logp: Tensor, old_logp: Tensor, advantage: Tensor, *, clip: float) -> Tensor:
    """max(-A * ratio, -A * clamp(ratio, 1 - clip, 1 + clip)) per token, ratio = exp(logp - old_logp).

    All (tokens,); `old_logp` is the sampling policy's, nats.
    """
    ratio = (logp - old_logp).exp()
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))


def value_losses(value: Tensor, old_value: Tensor, target: Tensor, *, clip: float) -> Tensor:
    """max((V - G)^2, (V' - G)^2) / 2 per token, V' = V held within `clip` of its value at sampling time.

    All (tokens,); `target` G is the return, advantage plus old value.
    """
    held = torch.clamp(value, old_value - clip, old_value + clip)
    return 0.5 * torch.maximum((value - target).square(), (held - target).square())
