"""What rules share whose items are answers that the engine has planned: passes, and the check before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from dlma.errors import UserError
from dlma.model.engine import Engine
from dlma.model.trees import Rows, Tree


class Planned(Protocol):
    """An item of training: its trees, as many as of every other."""

    @property
    def planned(self) -> list[Tree]: ...


Item = TypeVar("Item", bound=Planned)


def passes(engine: Engine, items: Sequence[Item]) -> list[tuple[Rows, list[Item]]]:
    """Items, cut into passes that fit the token budget: the rows of each, and the items that it is made of."""
    lengths = [max(len(tree) for tree in item.planned) for item in items]
    members = [[items[i] for i in batch] for batch in engine.batches(lengths, len(items[0].planned))]
    return [(engine.collate([tree for item in own for tree in item.planned]), own) for own in members]


def require_reference(*, drift: float, loss: float, wanted: float, allowed: float) -> None:
    """Raise UserError where the policy is not the pairs' reference before any update.

    drift: the largest difference of log-probs, nats per token, and how much of it is allowed; wanted: the closed form
    """
    if drift > allowed or abs(loss - wanted) > allowed * 100:
        raise UserError(
            f"step-0 check: policy and stored reference differ by {drift:.1e} nats per token (allowed "
            f"{allowed:.0e}), the first loss is {loss:.5f} and its closed form {wanted:.5f}: the pairs were "
            "scored by another model, dtype or template"
        )
