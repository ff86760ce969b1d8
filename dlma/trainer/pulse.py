"""Signs of life between the processes of a run, and the reason why one of them has ended.

Each process beats in the store through which they met. Rank 0 looks at all others, these at rank 0; who leaves a reason
or falls silent ends the run in all of them. Only so does a process hear of a machine that is gone while it computes
alone, or waits in a collective call that nothing will ever answer.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import asdict, dataclass

from torch.distributed import Store

from dlma import stopping
from dlma.errors import Stopped, Unavailable, UserError
from dlma.trainer.place import Place, leave_word

BEAT = 1.0  # seconds
SILENCE = 15.0  # seconds without a beat after which a process counts as gone
_GRACE = 3.0  # seconds in which the main thread may end by itself, since what it waits for breaks off
_FAILED = "failed"


@dataclass(frozen=True)
class Failure:
    """Why the process with this number ended.

    kind: mistake (of the user's), again (the same command may go on), fault (unexpected), stop (a signal)
    code: its exit code
    """

    number: int
    kind: str
    reason: str
    code: int

    def error(self, name: str) -> BaseException:
        """What another process raises; name: of the one that ended."""
        if self.kind == "stop":
            return Stopped(self.code - 128)
        kinds = {"mistake": UserError, "again": Unavailable}
        return kinds.get(self.kind, RuntimeError)(f"{name} ended: {self.reason}")


class Pulse:
    """The beat of this process, and what it hears of the others.

    store: a connection of its own, since a call may block
    failure: why the run ends, once that is known
    """

    def __init__(self, store: Store, place: Place) -> None:
        self.failure: Failure | None = None
        self.names = [f"process {number} of the run" for number in range(place.count)]
        self._store = store
        self._place = place
        self._parent = os.getppid()
        now = time.monotonic()
        watched = range(1, place.count) if place.number == 0 else [0]
        self._seen = dict.fromkeys(watched, now)
        self._counts = dict.fromkeys(watched, 0)
        self._rounds = 0
        self._answered = now  # when the store did
        self._told = False
        self._wake, self._over = threading.Event(), threading.Event()
        for work in (self._beat, self._watch):
            threading.Thread(target=work, daemon=True, name=f"pulse {work.__name__}").start()

    def close(self) -> None:
        """The run is over in all processes."""
        self._over.set()
        self._wake.set()

    def tell(self, failure: Failure) -> None:
        """Leave the reason why this process ends, unless another came first."""
        self.failure = self.failure or failure
        self._next_round()

    def heard(self) -> Failure | None:
        """What a process has said by now."""
        self._next_round()
        return self.failure

    def verdict(self) -> Failure | None:
        """Why the work with the others broke off; None once each has shown that it lives and nobody says anything."""
        since = time.monotonic()
        while self.failure is None and not all(seen > since + BEAT for seen in self._seen.values()):
            time.sleep(0.1)
        return self.failure

    def _next_round(self) -> None:
        """Let the store be asked now; a store that does not answer is not waited for."""
        rounds, until = self._rounds, time.monotonic() + BEAT
        self._wake.set()
        while self._rounds == rounds and time.monotonic() < until:
            time.sleep(0.01)

    def _beat(self) -> None:
        while not self._over.is_set():
            try:
                self._round()
            except RuntimeError as error:  # torch's word for a connection that is gone
                if not self._over.wait(2 * BEAT):
                    self.failure = self.failure or self._gone(0, f"its store does not answer: {error}")
                return
            self._wake.wait(BEAT)
            self._wake.clear()

    def _round(self) -> None:
        self._store.add(f"pulse/{self._place.number}", 1)
        if self.failure is not None and not self._told:
            self._store.compare_set(_FAILED, "", json.dumps(asdict(self.failure)))
            self._told = True
        if self._store.check([_FAILED]):
            self.failure = Failure(**json.loads(self._store.get(_FAILED)))
        for number, count in self._counts.items():
            now = self._store.add(f"pulse/{number}", 0)
            if now != count:
                self._counts[number], self._seen[number] = now, time.monotonic()
        self._answered = time.monotonic()
        self._rounds += 1

    def _watch(self) -> None:
        since: float | None = None
        while not self._over.wait(BEAT / 2):
            self.failure = self.failure or self._noticed()
            if self.failure is not None:
                since = since or time.monotonic()
                if time.monotonic() > since + _GRACE:
                    self._end(self.failure)

    def _noticed(self) -> Failure | None:
        if os.getppid() != self._parent:
            return self._gone(self._place.number, "what started it is gone")
        if time.monotonic() - self._answered > SILENCE:
            return self._gone(0, "its machine does not answer")
        silent = [number for number, seen in self._seen.items() if time.monotonic() - seen > SILENCE]
        return self._gone(silent[0], f"nothing was heard of it for {SILENCE:.0f} s") if silent else None

    @staticmethod
    def _gone(number: int, reason: str) -> Failure:
        return Failure(number, "again", reason, 2)

    def _end(self, failure: Failure) -> None:
        """End this process, whose main thread does not notice; rank 0 says why, the others tell their launcher."""
        words = "" if failure.kind == "stop" else f"{self.names[failure.number]} ended: {failure.reason}"
        if self._place.number:
            leave_word(words)
            os._exit(failure.code)
        stopping.end(failure.code, words)
