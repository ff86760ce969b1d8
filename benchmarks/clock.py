"""Times and memory inside a measured process."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class Clock:
    """Seconds by the name of what was done, and the moments at which training steps ended."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.marks: list[float] = []

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Adds the seconds of the block to `name`."""
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def mark(self) -> None:
        """Now begins, or ends, a step."""
        self.marks.append(time.perf_counter())

    @property
    def steps(self) -> list[float]:
        """Seconds of each step, between two marks."""
        return [after - before for before, after in zip(self.marks, self.marks[1:], strict=False)]


def memory(name: str) -> int:
    """This process's resident memory now ("VmRSS") or at most so far ("VmHWM"), bytes; 0 where it is not told."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0
    found = [line.split() for line in status.read_text().splitlines() if line.startswith(name + ":")]
    return int(found[0][1]) * 1024


def allocated(do: Callable[[], object]) -> int:
    """The most bytes that torch's allocator on the CPU had handed out at once to this thread while `do` ran.

    What was there before is not in it, unless it is freed, which counts against it.
    """
    from torch.profiler import ProfilerActivity, profile

    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        do()
    events = [one for one in seen.profiler.kineto_results.events() if one.name() == "[memory]"]
    live = most = 0
    for one in sorted(events, key=lambda one: one.start_ns()):
        live += one.nbytes()
        most = max(most, live)
    return most
