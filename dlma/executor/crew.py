"""The workers of executor=ray as the run sees them: who has what to do, who is lost and who takes over.

A worker is handed a bounded number of shards. One that is lost, by itself or with its machine, is replaced wherever
the cluster has room, and its shards are handed out anew; a shard at whose work workers are lost again and again
ends the run with a line.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError

from dlma.errors import Unavailable, UserError
from dlma.executor.worker import Declined, Done, Ready
from dlma.trainer.cutting import Span

LOST = (RayActorError, ObjectLostError, NodeDiedError, WorkerCrashedError)
_LOOK = 0.5  # seconds of waiting for anything to end


@dataclass
class Enlisted:
    """A worker: what it was asked to begin, what it said when it was ready, its shards by what will tell of them."""

    handle: Any
    begun: Any = None
    ready: Ready | None = None
    busy: dict[Any, Span] = field(default_factory=dict)


class Crew:
    """So many workers.

    start: has the cluster start one; ahead: shards that one is handed at once; tries: of a shard, and of each worker
    to become ready; patience: seconds without a worker that is ready
    """

    def __init__(self, start: Callable[[], Any], *, count: int, ahead: int, tries: int, patience: float) -> None:
        self._start, self._count, self._ahead, self._tries, self._patience = start, count, ahead, tries, patience
        self._members: list[Enlisted] = []
        self._waiting: deque[Span] = deque()
        self._lost: Counter[int] = Counter()
        self._done: Counter[tuple[str, str]] = Counter()
        self.reports: dict[str, dict] = {}

    def begin(self, run: bytes, job: bytes, label: str) -> Ready:
        """Have all workers begin a stage; what the first that is ready says of it."""
        self._stage, self._label = (run, job), label
        self._lost.clear()
        self._done.clear()
        self._unready, self.reports, self._since = 0, {}, time.monotonic()
        for member in self._members:
            self._ask(member)
        while len(self._members) < self._count:
            self._enlist()
        while not (ready := self._ready()):
            self._next()
        said = ready[0].ready
        assert said is not None
        return said

    def work(self, rows: Sequence, spans: Sequence[Span]) -> Iterator[tuple[Span, Done]]:
        """The shards as they are done, in whatever order."""
        self._waiting = deque(spans)
        while self._waiting or any(member.busy for member in self._members):
            for member in self._ready():
                while self._waiting and len(member.busy) < self._ahead:
                    span = self._waiting.popleft()
                    taken = rows[span.start : span.stop]
                    member.busy[member.handle.work.remote(span.index, taken, span.size)] = span
            if (found := self._next()) is not None:
                yield found

    @property
    def places(self) -> list[dict]:
        """Where the stage's shards were worked on, and how many of them."""
        return [{"host": host, "node": node, "shards": count} for (host, node), count in sorted(self._done.items())]

    def dismiss(self) -> None:
        """End all workers."""
        for member in self._members:
            ray.kill(member.handle)
        self._members = []

    def _ready(self) -> list[Enlisted]:
        return [member for member in self._members if member.ready is not None]

    def _enlist(self) -> None:
        member = Enlisted(self._start())
        self._members.append(member)
        self._ask(member)

    def _ask(self, member: Enlisted) -> None:
        member.ready, member.busy = None, {}
        member.begun = member.handle.begin.remote(*self._stage)

    def _next(self) -> tuple[Span, Done] | None:
        """The shard that is done next; None where that takes longer, or something else has happened."""
        of = {told: member for member in self._members for told in (member.begun, *member.busy) if told is not None}
        if self._ready():
            self._since = time.monotonic()
        ended, _ = ray.wait(list(of), timeout=_LOOK)
        if not ended:
            self._require_patience()
            return None
        member, told = of[ended[0]], ended[0]
        try:
            said = ray.get(told)
        except LOST as reason:
            self._replace(member, reason)
            return None
        if isinstance(said, Declined):
            raise said.error()
        if isinstance(said, Ready):
            member.begun, member.ready = None, said
            return None
        assert member.ready is not None
        self._done[member.ready.host, member.ready.node] += 1
        self.reports = said.reports
        return member.busy.pop(told), said

    def _require_patience(self) -> None:
        if not self._ready() and time.monotonic() - self._since > self._patience:
            raise Unavailable(
                f"executor=ray: no worker was ready for {self._patience:g} s: the cluster has no room for one "
                "(executor.cpus, executor.workers), or the model takes longer to load (executor.patience)"
            )

    def _replace(self, member: Enlisted, reason: Exception) -> None:
        """Another worker for one that is lost, whose shards wait again, the one at work before all."""
        why = _why(reason)
        if "creation task" in why:  # not lost: it never came to be, nor would another
            raise UserError(f"executor=ray: no worker can be made: {_last(reason)}; install the same dlma everywhere")
        self._members.remove(member)
        ray.kill(member.handle)  # where it is only out of reach
        where = f"a worker on {member.ready.host}" if member.ready else "a worker"
        spans = list(member.busy.values())
        self._waiting.extendleft(reversed(spans))
        then = self._tried_again(spans[0], why) if spans else self._begun_again(member, why)
        print(f"executor=ray: {where} was lost ({why}); {then}", file=sys.stderr)
        self._enlist()

    def _tried_again(self, span: Span, why: str) -> str:
        self._lost[span.index] += 1
        count, shard = self._lost[span.index], f"shard {span.index} of {self._label}"
        if count >= self._tries:
            raise Unavailable(
                f"executor=ray: {shard} lost its worker {count} times ({why}): look at the memory there; what is done "
                "is kept, and the same command goes on"
            )
        return f"{shard} is tried again ({count + 1} of {self._tries})"

    def _begun_again(self, member: Enlisted, why: str) -> str:
        self._unready += member.ready is None
        if self._unready >= self._tries * self._count:
            raise Unavailable(f"executor=ray: {self._unready} workers were lost before they were ready ({why})")
        return "another takes its place"


def _why(reason: Exception) -> str:
    """The sentence of Ray's that says why."""
    lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
    told = next((line for line in lines if " because " in line), lines[0] if lines else type(reason).__name__)
    return (told.partition(" because ")[2] or told).partition(". ")[0]


def _last(reason: Exception) -> str:
    return ([line.strip() for line in str(reason).splitlines() if line.strip()] or [type(reason).__name__])[-1]
