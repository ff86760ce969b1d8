"""Losses of a pair beyond -log sigmoid(z), and the per-token divergence of context distillation.

All pair losses are functions of the logit z = beta*h - margin_weight*margin (functional.preference), so each of
them has its margin-free form at margin_weight 0.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def soft_label_loss(logit: Tensor, label: Tensor | float) -> Tensor:
    """-s log sigmoid(z) - (1 - s) log sigmoid(-z): the cross-entropy to a label that is right with probability s.

    s = 1 is `sigmoid_loss`; s = 1 - epsilon for every pair is conservative DPO (Mitchell 2023, "A note on DPO
    with noisy preferences", equation 3).
    logit: (pairs,); label: (pairs,) or one number, in [0, 1]; returns: (pairs,), nats
    """
    return label * F.softplus(-logit) + (1 - label) * F.softplus(logit)


def ipo_loss(logit: Tensor, *, beta: float) -> Tensor:
    """((z - 1/2) / beta)^2; at margin_weight 0, (h - 1/(2 beta))^2 (Azar et al. 2023, equation 17, their tau is beta).

    logit: (pairs,), beta*h - margin_weight*margin; returns: (pairs,), nats squared; raises: ValueError for beta 0
    """
    if beta == 0:
        raise ValueError("beta is 0: IPO's target 1/(2 beta) does not exist")
    return ((logit - 0.5) / beta).square()


def reward_distillation_loss(logit: Tensor) -> Tensor:
    """(beta*h - beta1*R)^2: the implicit reward difference regressed on the margin (Fisch et al. 2024).

    logit: (pairs,), beta*h - beta1*R, where beta1 is margin_weight; returns: (pairs,), nats squared
    """
    return logit.square()


def log_offset(margin: Tensor, *, alpha: float) -> Tensor:
    """alpha * log(score(c) - score(r)): what beta*h is to exceed (Amini et al. 2024, ODPO, with f = log).

    margin: (pairs,), the score's difference of chosen over rejected; below 1 the offset is negative
    returns: (pairs,); raises: ValueError where a difference is not above 0, for its log does not exist
    """
    if not (margin > 0).all():
        raise ValueError("the log of a margin wants every chosen answer to have the larger score")
    return alpha * margin.log()


def margin_weights(margin: Tensor, *, high: float) -> Tensor:
    """clamp(R, 0, high) / mean(clamp(R, 0, high)): weights of mean 1 over all training pairs.

    margin: (pairs,), nats, chosen over rejected; raises: ValueError when no margin is above 0
    """
    kept = margin.clamp(0.0, high)
    if not kept.sum() > 0:
        raise ValueError("no pair has a margin above 0, so every weight would be 0")
    return kept / kept.mean()


def steering_weight(chosen: Tensor, rejected: Tensor, *, alpha: float) -> Tensor:
    """sigmoid(-(alpha * chosen + (1 - alpha) * rejected)): W of Self-Steering Optimization (arXiv 2410.17131, code).

    chosen, rejected: (pairs,), the policy's log-probs per token under the plain prompt, nats; returns: in (1/2, 1)
    """
    return torch.sigmoid(-(alpha * chosen + (1 - alpha) * rejected))


def divergence(first_logits: Tensor, second_logits: Tensor) -> Tensor:
    """KL(softmax(first) || softmax(second)), exact over the vocabulary, in float32.

    first_logits, second_logits: (tokens, vocabulary); returns: (tokens,), nats
    """
    first, second = first_logits.float().log_softmax(-1), second_logits.float().log_softmax(-1)
    return (first.exp() * (first - second)).sum(-1)


def chunked_divergence(
    first: Tensor,
    second: Tensor,
    first_head: Callable[[Tensor], Tensor],
    second_head: Callable[[Tensor], Tensor],
    chunk: int = 512,
) -> Tensor:
    """`divergence` of first_head(first) from second_head(second), `chunk` tokens at a time.

    The logits are recomputed in the backward pass, so memory does not grow with tokens times vocabulary.
    first, second: (tokens, width) each its own width, the states that predict the same tokens
    returns: (tokens,) float32, nats
    """

    def piece(one: Tensor, two: Tensor) -> Tensor:
        return divergence(first_head(one), second_head(two))

    pieces = zip(first.split(chunk), second.split(chunk), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([piece(one, two) for one, two in pieces])
    return torch.cat([checkpoint(piece, *pair, use_reentrant=False, preserve_rng_state=False) for pair in pieces])
