"""Resume points: everything that an exact continuation of training needs, written whole or not at all."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from pytorch_lightning.callbacks import Callback
from tqdm import tqdm

from dlma import files
from dlma.model.meter import Meter
from dlma.trainer import collectives
from dlma.trainer.bar import show


def newest_point(points: Path, *, in_parts: bool = False) -> str | None:
    """The newest resume point that is whole, or None; says so where there are points that cannot be gone on from.

    in_parts: of weights that are spread over processes, whose points are folders
    """
    whole = [path for path in points.glob("step-*.ckpt") if files.sealed(path)]
    fitting = [path for path in whole if path.is_dir() == in_parts]
    if whole and not fitting:
        other = "trainer.strategy=ddp or one process" if in_parts else "trainer.strategy=fsdp"
        print(f"train: the resume points are of {other}; this training begins anew", file=sys.stderr)
    return str(max(fitting)) if fitting else None


class ResumePoint(Callback):
    """Saves all that an exact continuation needs, every so many steps; the last two points are kept."""

    def __init__(self, points: Path, every: int, bar: tqdm, listen: Callable[[dict], None]) -> None:
        self.listen = listen
        self.points = points
        self.every = every
        self.bar = bar
        self.steps = 0  # since this start

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        row = pl_module.log_rows[-1]
        for known in pl_module.log_rows if self.steps == 0 else [row]:  # those of before a stop come first
            self.listen(known)
        self.bar.set_postfix({k: f"{row[k]:.3f}" for k in ("loss", "accuracy") if k in row}, refresh=False)
        self._count(trainer, pl_module.meter)
        if trainer.global_step % self.every == 0:
            self.save(trainer)

    def _count(self, trainer, meter: Meter) -> None:
        """Tokens since this start, and those that the steps to come will take at this rate; steps where none count."""
        self.steps += 1
        left = trainer.max_steps - trainer.global_step
        done = meter.tokens or self.steps
        show(self.bar, done, done + round(done / self.steps * left))

    def save(self, trainer) -> None:
        """Write a point under a name of its own, seal it, and drop all but the last two."""
        path = self.points / f"step-{trainer.global_step:08d}.ckpt"
        if trainer.lightning_module.sharded:
            self._save_parts(trainer, path)
        elif collectives.rank():  # takes part, but the first process writes
            trainer.save_checkpoint(path, weights_only=False)
        else:
            with files.atomic(path) as draft:
                trainer.save_checkpoint(draft, weights_only=False)
        if not collectives.rank():
            files.seal(path)
            for old in sorted(self.points.glob("step-*.ckpt"))[:-2]:
                files.unseal(old)

    @staticmethod
    def _save_parts(trainer, path: Path) -> None:
        """A point of weights that are spread is a folder (torch.distributed.checkpoint), where each writes its part."""
        if not collectives.rank():
            files.unseal(path)  # what a killed start left of it
        collectives.wait()
        trainer.save_checkpoint(path, weights_only=False)
        collectives.wait()
