"""Learning-rate schedules: the share of the peak that a step has."""

from __future__ import annotations

import math


def rate_share(step: int, *, warmup: int, steps: int, shape: str) -> float:
    """The learning rate of a step (from 0) over its peak: linear up to it, then constant, or half a cosine down.

    constant: min(1, (step + 1) / warmup)
    cosine: after the warm-up 1/2 (1 + cos(pi (step - warmup) / (steps - warmup))); 0 is reached after the last step
    raises: ValueError for another shape
    """
    if shape not in ("constant", "cosine"):
        raise ValueError(f"schedule {shape!r} is not one of constant, cosine")
    if step < warmup:
        return (step + 1) / warmup
    if shape == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
