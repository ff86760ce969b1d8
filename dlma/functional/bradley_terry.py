"""The Bradley-Terry model of preferences: P(first is preferred) = sigmoid(r(first) - r(second))."""

import torch.nn.functional as F
from torch import Tensor


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, margin: Tensor, *, margin_weight: float) -> Tensor:
    """-log sigmoid(r(c) - r(r) - margin_weight * m) per pair (Bradley and Terry 1952; the margin as in Llama 2).

    chosen, rejected: (pairs,), rewards of both answers; margin: (pairs,), nats, chosen over rejected, clamped
    """
    return F.softplus(rejected - chosen + margin_weight * margin)
