"""Shards as a map over the machines of a Ray cluster: this process cuts, hands out, checks and writes.

A worker holds the models of the run once (worker.py) and is handed shards as it gives some back (crew.py). What it
gives back is written here, as any run writes it: one by one, atomically, under the stage's lock. Where it was computed
is no part of a stage's key.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlma.errors import Unavailable, UserError
from dlma.ranges import Few, Positive
from dlma.store import shards
from dlma.store.machine import difference

if TYPE_CHECKING:
    from dlma.executor.crew import Crew
    from dlma.executor.local import Make
    from dlma.executor.worker import Ready
    from dlma.trainer.runtime import Runtime

_REACHED = 5.0  # seconds for the head of a cluster to take a connection
_STORE = 256 << 20  # bytes of memory for what workers of a cluster of this machine send each other: rows
_START = "start one with `ray start --head`, or take executor.address=local"


class RayExecutor:
    """The workers of a cluster.

    address: local: a cluster on this machine, for as long as the run; auto: the one that this machine is part of;
        or HOST:PORT of its head
    workers: processes that hold the model
    cpus: of each worker; with trainer.accelerator=gpu it has one GPU too
    ahead: shards that a worker is handed at once
    tries: of a shard whose worker was lost
    patience: seconds without a worker that is ready
    """

    one_process = True  # the workers are the others

    def __init__(
        self,
        *,
        address: str = "local",
        workers: Few = 2,
        cpus: Few = 1,
        ahead: Few = 2,
        tries: Few = 3,
        patience: Positive = 1800.0,
    ) -> None:
        self.address, self.workers, self.cpus, self.ahead = address, workers, cpus, ahead
        self.tries, self.patience = tries, patience
        self._crew: Crew | None = None
        self._joined = False
        self._told: set[str] = set()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """In the block it may be called; the cluster is joined when something is to be done, and left at the end.

        raises: Unavailable for an address at which nothing answers
        """
        _require_address(self.address)
        try:
            yield
        finally:
            if self._crew is not None:
                import ray

                self._crew.dismiss()
                self._crew = None
                if self._joined:
                    ray.shutdown()

    def predict(self, make: Make, cell: Any, rows: Sequence, record: type, folder: Path, label: str) -> dict:
        """What the module of `make(cell)` predicts of all rows, written into the folder; engines' reports, and places.

        make: is called in the workers, with the context of the run as they have it
        """
        from ray import cloudpickle

        from dlma.executor.worker import lent, surroundings
        from dlma.trainer import cutting
        from dlma.trainer.bar import progress

        crew = self._crew = self._crew or self._crew_of(cell.runtime)
        run = cloudpickle.dumps((lent(cell), surroundings(cell)))
        first = crew.begin(run, cloudpickle.dumps((make, rows, record, label)), label)
        self._tell_of_another_machine(first, cell)
        spans = cell.runtime.cut(rows, first.drawn, first.most)
        layout = cutting.layout(spans)
        wanted = set(shards.missing_shards(folder, len(spans), layout=layout))
        todo = [span for span in spans if span.index in wanted]
        with progress(label, "tok", sum(span.size for span in todo)) as bar:
            for span, done in crew.work(rows, todo):
                shards.write_shard(folder, span.index, done.table)
                bar.update(span.size)
        shards.merge_shards(folder, len(spans), layout=layout)
        return {**crew.reports, "workers": crew.places}

    def _crew_of(self, runtime: Runtime) -> Crew:
        self._join()
        import ray

        from dlma.executor.crew import Crew
        from dlma.executor.worker import ShardWorker

        gpus = 1 if runtime.accelerator == "gpu" else 0
        options = {"num_cpus": self.cpus, "num_gpus": gpus, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        actor = ray.remote(**options)(ShardWorker)
        return Crew(
            lambda: actor.remote(os.getcwd()),
            count=self.workers,
            ahead=self.ahead,
            tries=self.tries,
            patience=self.patience,
        )

    def _join(self) -> None:
        """Be part of the cluster, unless this process is already."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a run sends nothing to anybody
        import ray

        self._joined = not ray.is_initialized()
        if not self._joined:
            return
        own = {"num_cpus": self.workers * self.cpus, "object_store_memory": _STORE, "include_dashboard": False}
        settings = {"log_to_driver": False, "configure_logging": False}
        try:
            with _own_signals_and_words():
                ray.init(address=self.address, **settings, **(own if self.address == "local" else {}))
        except Exception as reason:  # Ray raises plain ones, too: of a cluster that does not come up
            said = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
            raise Unavailable(
                f"executor.address={self.address}: no Ray cluster to work with ({said}): {_START}"
            ) from None

    def _tell_of_another_machine(self, ready: Ready, cell: Any) -> None:
        then, here = ({**side, "threads": ""} for side in (ready.machine, cell.store.machine))
        found = difference(then, here)
        if found and found not in self._told:
            self._told.add(found)
            cell.store.notify(f"executor=ray: {ready.host} is another machine ({found}): last digits may differ")


def _require_address(address: str) -> None:
    """Raise UserError for what is no address, and Unavailable where nobody listens; nothing is imported for that."""
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise UserError(f"executor.address={address}: must be local, auto or HOST:PORT of a cluster's head")
    try:
        socket.create_connection((host, int(port)), _REACHED).close()
    except (OSError, OverflowError) as reason:
        raise Unavailable(f"executor.address={address}: no Ray cluster answers there ({reason}): {_START}") from None


@contextmanager
def _own_signals_and_words() -> Iterator[None]:
    """Put back the handler of SIGTERM that stood before Ray's, which would exit; Ray logs nothing, then or later."""
    before, disabled = signal.getsignal(signal.SIGTERM), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        logging.getLogger("ray").setLevel(logging.CRITICAL + 1)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
