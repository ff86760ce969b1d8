"""The launcher: starts the processes of one run; rank 0 sends the heavy stages to the workers and takes part in them.

With `trainer.devices=N` the leader starts N - 1 followers before it computes any stage. All walk the same pipeline,
but only the leader looks stages up, locks and renames; it tells the followers through their standard input what
became of each stage, and when to work on one. They meet in the writers of heavy stages (`together`), nowhere else.
A follower that dies ends the run, with its reason; a leader that dies ends its followers, whose input then ends.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dlma import stopping
from dlma.config.build import resolved
from dlma.context import RunContext
from dlma.errors import Unavailable, UserError
from dlma.store.stage import Stage

MODULE = "dlma.worker"
READY = "ready"
_GRACE = 15.0  # seconds between a follower's death and the end of a leader that does not notice


class RankZero(RunContext):
    """The first process's cell."""

    together = True

    def __init__(self, cfg, folder: Path) -> None:
        super().__init__(cfg, folder)
        self.processes: int = cfg.trainer.devices
        self._log: list[dict] = []
        self._followers: list[Worker] = []
        self._closing = threading.Event()

    def make(self, stage: Stage, write, *, together: bool = False) -> Stage:
        def lead(folder: Path) -> dict | None:
            return self._with_followers(stage, folder, write) if together else self._without(folder, write)

        made = self.store.make(stage, lead, config=self.recorded)
        stage.writer = _later
        self._tell({"made": str(stage.folder)})
        return made

    def close(self, well: bool) -> None:
        """Let the followers go when the run ended well; else, or if one does not go, end them."""
        self._closing.set()
        if not well:
            self.kill()
        for follower in self._followers:
            follower.end()
        if self._followers:
            from dlma.trainer import collectives

            collectives.leave()
        self._followers.clear()  # the list that the cells of all rounds share

    def kill(self) -> None:
        """End all followers at once."""
        for follower in self._followers:
            follower.kill()

    def _with_followers(self, stage: Stage, folder: Path, write: Callable[[Path], dict | None]) -> dict | None:
        if not self._followers:
            self._start()
        self._tell({"write": str(stage.folder), "folder": str(folder)})
        try:
            return write(folder)
        except UserError:
            raise
        except Exception as error:
            raise self._explained(error) from error

    @staticmethod
    def _without(folder: Path, write: Callable[[Path], dict | None]) -> dict | None:
        if "torch" not in sys.modules:
            return write(folder)
        from dlma.trainer import collectives

        with collectives.alone():
            return write(folder)

    def _start(self) -> None:
        """Start the followers and connect all processes."""
        from dlma.trainer import collectives

        gpu = self.cfg.trainer.accelerator == "gpu"
        port = _free_port()
        first = {
            "cfg": {**resolved(self.cfg), "prompts": self.prompts},
            "folder": str(self.folder),
            "processes": self.processes,
            "port": port,
        }
        for number in range(1, self.processes):
            self._followers.append(Worker(number, [first | {"number": number}, *self._log], self.store.root))
        threading.Thread(target=self._watch, daemon=True).start()
        for follower in self._followers:
            follower.await_ready()
        collectives.join(0, self.processes, port, gpu=gpu)

    def _tell(self, message: dict) -> None:
        self._log.append(message)
        for follower in self._followers:
            follower.tell(message)

    def _explained(self, error: Exception) -> Exception:
        """A follower's reason where one has died, which leaves the leader with a broken connection; else the error."""
        until = time.monotonic() + 5
        while time.monotonic() < until:
            for follower in self._followers:
                if follower.died:
                    return follower.reason()
            time.sleep(0.1)
        return error

    def _watch(self) -> None:
        """End the run when a follower has died and the leader, deep in a call that cannot be broken off, goes on."""
        while not self._closing.wait(0.5):
            dead = [follower for follower in self._followers if follower.died]
            if dead and not self._closing.wait(_GRACE):
                print(f"error: {dead[0].reason()}", file=sys.stderr, flush=True)
                self.kill()
                os._exit(2)


class Worker:
    """A process that the leader started."""

    def __init__(self, number: int, messages: list[dict], place: Path) -> None:
        """place: a folder for what it says on its way, of which nothing stays"""
        self.number = number
        self._said: IO[bytes] = tempfile.TemporaryFile(dir=place)  # noqa: SIM115 (closed by `end`)
        package = Path(__file__).resolve().parents[1]
        path = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, "PYTHONPATH": path, "TQDM_DISABLE": "1"},
        )
        for message in messages:
            self.tell(message)

    @property
    def died(self) -> bool:
        """Whether it has ended badly."""
        return self._process.poll() not in (None, 0)

    def tell(self, message: dict) -> None:
        """Send an order; one that is dead does not hear it, which shows where it is next needed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._process.wait()

    def await_ready(self) -> None:
        """Return when it can be connected to; raises UserError with its reason when it ends before."""
        assert self._process.stdout is not None
        if self._process.stdout.readline().decode().strip() != READY:
            self._process.wait()
            raise self.reason()

    def reason(self) -> UserError:
        """Why it ended: its own error line, else its last line or the signal."""
        self._said.seek(0)
        lines = [line for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        own = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        code = self._process.poll()
        killed = f"killed by signal {signal.Signals(-code).name}" if code is not None and code < 0 else ""
        words = (own or ([killed] if killed else lines) or [f"exit code {code}"])[-1]
        return UserError(f"process {self.number} of the run ended: {words}")

    def end(self) -> None:
        """Close its input, and wait for its end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            self._process.wait()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process.stdout.close()
        self._said.close()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()


class WorkerContext(RunContext):
    """A follower's cell: it waits for what the leader says of each stage, and works on those that it is told to."""

    together = True

    def __init__(self, cfg, folder: Path, orders: queue.Queue) -> None:
        super().__init__(cfg, folder)
        self._orders = orders

    def make(self, stage: Stage, write, *, together: bool = False) -> Stage:
        while True:
            order = self._orders.get()
            if order.get("made", order.get("write")) != str(stage.folder):
                raise RuntimeError(f"processes disagree: one is at {stage}, the first at {order}")
            if "made" in order:
                stage.writer = _later
                return stage
            write(Path(order["folder"]))

    def log_step(self, row: dict[str, float]) -> None:
        """Rank 0 does the logging."""


@contextmanager
def open_run(cfg, folder: Path) -> Iterator[RunContext]:
    """The cell of this process; a leader's, whose followers end with the block, where there are several processes."""
    if cfg.trainer.accelerator != "cpu":
        from dlma.trainer import devices

        devices.require(cfg.trainer.accelerator, cfg.trainer.devices)
    if cfg.trainer.devices == 1:
        yield RunContext(cfg, folder)
        return
    refuse_other_launchers()
    leader, well = RankZero(cfg, folder), False
    try:
        with stopping.last_words(lambda code: leader.kill()):
            yield leader
        well = True
    finally:
        leader.close(well)


def refuse_other_launchers() -> None:
    """Another launcher would start every process with this command line, and each would start followers."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(
            "trainer.devices: this process was started by torchrun or the like (WORLD_SIZE is set): start one "
            "process, which starts the others; several machines are not supported (docs/scale.md)"
        )


def require_shared_steps(cell: RunContext, rule):
    """The training rule, unless there are several processes and it cannot share its steps: then a UserError."""
    if cell.cfg.trainer.devices > 1 and not getattr(rule, "shares_steps", False):
        name = type(rule).__name__
        raise UserError(f"trainer.devices={cell.cfg.trainer.devices}: {name} trains in one process: trainer.devices=1")
    return rule


def _later(folder: Path) -> dict | None:
    """Stands for the writer of a stage once it is made: with several processes none is made anew in mid-run."""
    raise Unavailable(f"{folder.parent.name}/{folder.name} was damaged or pruned: run the same command again")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
