"""The check for nan and infinity in training: it stops at that step and names its rows; earlier work stays.

Loss, gradient and recorded quantities are looked at before the optimizer uses them, the weights after it did: so no
resume point and no policy is ever written with such weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from dlma.errors import UserError, few
from dlma.trainer import collectives, fsdp

if TYPE_CHECKING:
    from dlma.training.rule import Step, TrainingRule


def require_step(rule: TrainingRule, step: Step, values: dict[str, float]) -> None:
    """Raises UserError unless all values of a step are finite; they are the same in all processes."""
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if bad:
        said = ", ".join(f"{name} {value}" for name, value in bad.items())
        advice = _diverged(rule) if rule.global_step else _FIRST
        _stop(rule.global_step + 1, said, _at_fault(rule, step), advice)


def require_weights(rule: TrainingRule, step: Step) -> None:
    """Raises UserError unless all trained weights are finite after a step."""
    if not all_finite(rule.trained_weights(), rule.device):
        said = "weights that are nan or infinite after the update"
        _stop(rule.global_step, said, collectives.gathered(_names(step.items)), _diverged(rule))


def require_columns(columns: Mapping[str, Iterable[Tensor]], names: Sequence[str], where: str) -> None:
    """Raises UserError unless every row's numbers are finite. columns: by name, one tensor per row."""
    for column, rows in columns.items():
        bad = [name for name, row in zip(names, rows, strict=True) if not row.isfinite().all()]
        if bad:
            raise UserError(
                f"{where}: {column} of {few(bad)} are no finite numbers: {_FIRST}; the last resume point is kept"
            )


@torch.no_grad()
def all_finite(weights: Iterable[Tensor], device: torch.device) -> bool:
    """Whether no weight is nan or infinite, in any process."""
    local = [cast(DTensor, weight).to_local() if fsdp.is_sharded(weight) else weight for weight in weights]
    held = [weight for weight in local if weight.numel()]  # of a small matrix a process may hold nothing
    largest = torch.nn.utils.get_total_norm(held, norm_type=math.inf)
    return collectives.totals([float(not largest.isfinite())], device) == [0.0]


_FIRST = "the weights that training began with, or the log-probs and margins of these rows, are at fault"


def _diverged(rule: TrainingRule) -> str:
    return f"training has diverged: lower {rule.rate}, or raise the warm-up"


def _stop(number: int, said: str, rows: list[str], advice: str) -> NoReturn:
    raise UserError(
        f"training step {number}: {said}; rows {few(rows)}: {advice}; nothing is stored, the last resume point is kept"
    )


def _at_fault(rule: TrainingRule, step: Step) -> list[str]:
    """The rows whose own loss is not finite, of all processes; all rows where that cannot be said of one."""
    bad = [] if rule.sharded else [item for item in step.items if not _sound(rule, item)]
    return collectives.gathered(_names(bad)) or collectives.gathered(_names(step.items))


@torch.no_grad()
def _sound(rule: TrainingRule, item: Any) -> bool:
    values: list[float | Tensor] = []
    for loss, recorded in [rule.loss(micro) for micro in rule.micros([item])]:
        values += [loss, *recorded.values()]
    return all(math.isfinite(float(value)) for value in values)


def _names(items: Iterable) -> list[str]:
    return [item.id for item in items]
