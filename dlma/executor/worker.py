"""What a worker of executor=ray does: it loads what a run's shards are worked on with, once, and works on them.

It runs in a process of its own on whatever machine, writes nothing, and gives back what it made of a shard.
"""

from __future__ import annotations

import copy
import gc
import os
import pickle
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import ray
import torch
from omegaconf import OmegaConf

from dlma.config.build import resolved
from dlma.errors import Unavailable, UserError
from dlma.store.machine import arithmetic, machine
from dlma.store.manifest import minor
from dlma.store.store import KEYED_LIBRARIES, VERSION
from dlma.trainer.ranks import Ranks
from dlma.trainer.runtime import Shard, engine_reports, shard_table


@dataclass(frozen=True)
class Declined:
    """A mistake that the user can mend, of one line; again: of the surroundings, and the same command goes on."""

    line: str
    again: bool

    def error(self) -> UserError:
        return (Unavailable if self.again else UserError)(self.line)


@dataclass(frozen=True)
class Ready:
    """A worker that can be handed shards: where it is, and what it says of them (Runtime.bounds)."""

    host: str
    node: str
    machine: dict[str, str]
    drawn: int
    most: int | None


@dataclass(frozen=True)
class Done:
    """What became of a shard, and the reports of the engines so far."""

    table: pa.Table
    reports: dict[str, dict]


def surroundings(cell: Any) -> dict[str, object]:
    """What decides a stage's bytes and may differ from machine to machine, by name; cell: dlma.context.RunContext."""
    libraries: dict[str, object] = {name: minor(name) for name in KEYED_LIBRARIES}
    return {"the model": cell.weights, "the stages of dlma": VERSION, **libraries, **arithmetic()}


def lent(cell: Any) -> Any:
    """A run's context for a process elsewhere: what it says of itself, and nothing that is loaded, open or written to.

    The model is looked up and loaded there, save one that was tuned on instructions, which lies in the store.
    """
    found = copy.copy(cell)
    made = {name for name in vars(cell) if isinstance(getattr(type(cell), name, None), cached_property)}
    for name in made - ({"spec", "frozen", "weights"} if cell.tuned else set()):
        del found.__dict__[name]
    found.__dict__.update(_base=None, _current=None, _told=True, _logged=set(), summary={}, ranks=Ranks())
    found.cfg = OmegaConf.create(resolved(cell.cfg))
    return found


class ShardWorker:
    """The process of a worker; an actor of Ray is made of this class.

    folder: where the run was started, from which its paths are; where there is no such folder they are whole
    """

    def __init__(self, folder: str) -> None:
        if os.path.isdir(folder):
            os.chdir(folder)
        self._run, self._cell = b"", None

    def begin(self, run: bytes, job: bytes) -> Ready | Declined:
        """Load what a stage takes; what is loaded for the same run stays.

        run: its context and surroundings; job: what makes the stage's module, all its rows, their record and the label
        """
        return self._refused(lambda: self._begin(run, job))

    def work(self, index: int, rows: list, size: int) -> Done | Declined:
        """The table that the module makes of a shard's rows."""
        return self._refused(lambda: self._work(Shard(index, rows, self._rows, size)))

    def _begin(self, run: bytes, job: bytes) -> Ready:
        self._module = None
        if run != self._run:
            self._cell = None
            gc.collect()
            self._run, (self._cell, expected) = run, pickle.loads(run)
            self._require(expected)
        cell: Any = self._cell
        make, self._rows, self._record, self._label = pickle.loads(job)
        self._module = make(cell).eval().to(cell.runtime.trainer().strategy.root_device)
        node = ray.get_runtime_context().get_node_id()
        return Ready(socket.gethostname(), node, machine(**cell.placed), *cell.runtime.bounds(self._module))

    def _require(self, expected: dict[str, object]) -> None:
        """Raise UserError where shards would have other bytes here, or other rows."""
        found = surroundings(self._cell)
        wrong = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        if wrong:
            then, here = (f"{side.get(wrong[0], 'not set')}"[:80] for side in (expected, found))
            raise UserError(f"{wrong[0]} is another than where the run was started: {then} there, {here} here")

    def _work(self, shard: Shard) -> Done:
        assert self._module is not None
        with torch.no_grad():
            rows = self._module.predict_step(shard, 0)
        return Done(shard_table(self._record, rows, self._label), engine_reports(self._module))

    def _refused(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except UserError as reason:
            return Declined(f"executor=ray: {socket.gethostname()}: {reason}", isinstance(reason, Unavailable))
