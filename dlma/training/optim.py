"""The optimizer of a training, as one object: what takes the steps, how large they are, and when they are cut."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from dlma.errors import UserError
from dlma.functional.schedules import rate_share
from dlma.ranges import NotNegative, Positive, Rate
from dlma.training.float32_copies import Float32Copies


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Settings of one training's optimizer (conf/recipe/base/optim.yaml).

    warmup: steps in which the learning rate rises to `lr`; below 1 their share of all steps
    schedule: of the learning rate after the warm-up (functional/schedules.py)
    clip_norm: a step's gradient is scaled down to this L2 norm where it is longer
    """

    optimizer: Literal["adamw", "rmsprop"]
    lr: Rate
    weight_decay: NotNegative
    warmup: NotNegative
    schedule: Literal["constant", "cosine"]
    clip_norm: Positive

    def __post_init__(self) -> None:
        if self.warmup < 0 or (self.warmup > 1 and self.warmup != int(self.warmup)):
            raise UserError(f"optim.warmup={self.warmup}: give whole steps, or a share of all steps from 0 to 1")

    def build(self, groups: Iterable[dict], *, fused: bool) -> torch.optim.Optimizer:
        """The optimizer of these groups of weights; of float32 copies where they have fewer digits than its steps.

        fused: in one kernel, where there is one
        """
        groups = list(groups)
        make = partial(self._plain, fused=fused)
        rounded = any(weight.dtype != torch.float32 for group in groups for weight in group["params"])
        return Float32Copies(groups, make, lr=self.lr) if rounded else make(groups)

    def _plain(self, groups: list[dict], *, fused: bool) -> torch.optim.Optimizer:
        options: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, fused=fused, **options)
        return torch.optim.RMSprop(groups, **options)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of so many."""
        warmup = int(self.warmup * steps if self.warmup < 1 else self.warmup)
        return self.lr * rate_share(step, warmup=warmup, steps=steps, shape=self.schedule)
