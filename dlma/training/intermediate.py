"""Intermediate policies: saved on the way through training, so that one run gives a whole curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning.callbacks import Callback

from dlma.model.saved import save
from dlma.trainer import collectives


def evenly(count: int, steps: int) -> list[int]:
    """At most `count` steps between the first and the last, at equal distances; both ends are left out."""
    return sorted({steps * i // (count + 1) for i in range(1, count + 1)} - {0, steps})


class SaveIntermediate(Callback):
    """Saves the policy as it is after some of the steps, under intermediate/step-NNNNNN of the stage's folder."""

    def __init__(self, folder: Path, steps: Sequence[int]) -> None:
        self.folder = folder / "intermediate"
        self.steps = frozenset(steps)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step in self.steps and not collectives.rank():
            place = self.folder / f"step-{trainer.global_step:06d}"
            save(pl_module.model, place, network=pl_module.network)
