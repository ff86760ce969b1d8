"""Shards worked on in the processes of the run: one, or those that a launcher has started (dlma/trainer)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytorch_lightning as pl

    Make = Callable[[Any], pl.LightningModule]  # of a run's context (dlma/context.py)


class LocalExecutor:
    """The run's own runtime does it."""

    one_process = False  # that of each rank does

    def __init__(self) -> None:
        """Nothing to be said."""

    def opened(self) -> AbstractContextManager[None]:
        """The time in which it may be called."""
        return nullcontext()

    def predict(self, make: Make, cell: Any, rows: Sequence, record: type, folder: Path, label: str) -> dict:
        """What the module of `make(cell)` predicts of all rows, written into the folder; its engines' reports."""
        return cell.runtime.predict(make(cell), rows, record, folder, label)
