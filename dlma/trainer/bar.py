"""Progress bars: tokens done of those that are known to come, on standard error, never still for two seconds."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from dlma.model.engine import Engine
from dlma.model.work import Work, counted

BEAT = 1.0  # seconds after which the clock of a bar moves on by itself: one pass over a large model takes longer


@contextmanager
def progress(label: str, unit: str, total: int = 0) -> Iterator[tqdm]:
    """A bar with a rate and its end."""
    with tqdm(total=total, desc=f"{label:>10}", unit=unit, unit_scale=True, dynamic_ncols=True, smoothing=0.1) as bar:
        over = threading.Event()
        beat = threading.Thread(target=_beat, args=(bar, over), daemon=True)
        beat.start()
        try:
            yield bar
        finally:
            over.set()
            beat.join()


def _beat(bar: tqdm, over: threading.Event) -> None:
    while not over.wait(BEAT):
        bar.refresh()


@contextmanager
def counting(module: object, sizes: Sequence[int], label: str) -> Iterator[None]:
    """A bar of what the engines and the sampler of a module compute in the block, shard by shard.

    sizes: of the shards to come, in tokens of their rows
    """
    parts = sum(isinstance(value, Engine) for value in vars(module).values()) + hasattr(module, "sampler")
    with progress(label, "tok", sum(sizes)) as bar, counted(Work(sizes, parts, lambda *counts: show(bar, *counts))):
        yield


def show(bar: tqdm, done: int, total: int) -> None:
    """Move a bar to where the count is."""
    bar.total = max(done, total)
    bar.update(done - bar.n)
