"""The pair losses that an objective can be given, as YAML nodes: `objective.loss` of conf/objective.

Each is called with the logit z = beta*h - margin_weight*margin and the margin (chosen over rejected, clamped,
nats), both (pairs,), and returns the loss per pair. The formulas stand in functional/losses.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlma.functional.losses import ipo_loss, log_offset, reward_distillation_loss, soft_label_loss
from dlma.functional.preference import sigmoid_loss
from dlma.ranges import Minority, NotNegative, Positive


class Sigmoid:
    """-log sigmoid(z): DPO, and the paper's loss where there is a margin."""

    def __call__(self, logit: Tensor, margin: Tensor) -> Tensor:
        return sigmoid_loss(logit)


class Conservative:
    """Conservative DPO: every label is taken to be wrong with probability `label_smoothing`."""

    def __init__(self, *, label_smoothing: Minority) -> None:
        self.label = 1 - label_smoothing

    def __call__(self, logit: Tensor, margin: Tensor) -> Tensor:
        return soft_label_loss(logit, self.label)


class SoftLabels:
    """Each label is right with probability sigmoid(R / tau)."""

    def __init__(self, *, tau: Positive) -> None:
        self.tau = tau

    def __call__(self, logit: Tensor, margin: Tensor) -> Tensor:
        return soft_label_loss(logit, torch.sigmoid(margin / self.tau))


class Ipo:
    """IPO; `beta` is its regularisation tau and must be the objective's own beta."""

    def __init__(self, *, beta: Positive) -> None:
        self.beta = beta

    def __call__(self, logit: Tensor, margin: Tensor) -> Tensor:
        return ipo_loss(logit, beta=self.beta)


class TargetMargin:
    """-log sigmoid(z - target_margin): every pair is to be apart by the same margin, as in SimPO."""

    def __init__(self, *, target_margin: NotNegative) -> None:
        self.target_margin = target_margin

    def __call__(self, logit: Tensor, margin: Tensor) -> Tensor:
        return sigmoid_loss(logit - self.target_margin)


class LogOffset:
    """-log sigmoid(z - alpha log R): ODPO's offset; raises ValueError for a pair without R above 0."""

    def __init__(self, *, alpha: Positive) -> None:
        self.alpha = alpha

    def __call__(self, logit: Tensor, margin: Tensor) -> Tensor:
        return sigmoid_loss(logit - log_offset(margin, alpha=self.alpha))


class RewardDistillation:
    """(beta*h - beta1*R)^2."""

    def __call__(self, logit: Tensor, margin: Tensor) -> Tensor:
        return reward_distillation_loss(logit)
