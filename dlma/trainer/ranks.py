"""The processes of a run, its ranks: all walk the same pipeline, and rank 0 alone deals with store and run folder.

Rank 0 looks a stage up, locks it, and says through the process group whether it was there or is to be worked on by
all; so do the others hear of every choice that it makes. An error in one of them reaches all: dlma/trainer/pulse.py.
"""

from __future__ import annotations

import contextlib
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from dlma import files, redaction, screen
from dlma.errors import Stopped, Unavailable, UserError
from dlma.trainer import place as places

if TYPE_CHECKING:
    from dlma.store.stage import Stage, Writer
    from dlma.store.store import Store
    from dlma.trainer.pulse import Failure, Pulse


class Ranks:
    """A process by itself: it has nobody to tell and nobody to wait for.

    number: of this process, of `count`
    """

    number = 0
    count = 1

    def same(self, make: Callable[[], Any]) -> Any:
        """What rank 0 makes, in all ranks."""
        return make()

    def first(self, make: Callable[[], Any]) -> Any:
        """What rank 0 makes without the others; None in these."""
        return make()

    def make(self, store: Store, stage: Stage, write: Writer, *, config: dict, together: bool) -> Stage:
        """Have the store compute a stage unless it is there; together: all ranks work on it."""
        return store.make(stage, write, config=config)


class SeveralRanks(Ranks):
    """One of several processes, connected with the others."""

    def __init__(self, place: places.Place, pulse: Pulse) -> None:
        self.number, self.count = place.number, place.count
        self._pulse = pulse

    def same(self, make: Callable[[], Any]) -> Any:
        from dlma.trainer import collectives

        return collectives.same(None if self.number else make())

    def first(self, make: Callable[[], Any]) -> Any:
        from dlma.trainer import collectives

        if self.number:
            return None
        with collectives.alone():
            return make()

    def make(self, store: Store, stage: Stage, write: Writer, *, config: dict, together: bool) -> Stage:
        def lead(folder: Path) -> dict | None:
            if not together:
                return self.first(lambda: write(folder))
            self.same(lambda: ("work", str(stage)))
            return write(folder)

        if self.number:
            self._follow(stage, write)
        else:
            store.make(stage, lead, config=config)
            self.same(lambda: ("made", str(stage)))
        stage.writer = _later
        return stage

    def _follow(self, stage: Stage, write: Writer) -> None:
        """Work on a stage as often as rank 0 says, until it is made."""
        while True:
            what, which = self.same(lambda: None)
            if which != str(stage):
                raise RuntimeError(f"processes disagree: this one is at {stage}, the first at {which}")
            if what == "made":
                if not files.awaited([stage.folder], files.VISIBLE):
                    raise UserError(f"store.root={stage.folder.parents[1]}: is no folder that all machines share")
                return
            write(stage.partial)

    def judged(self, error: BaseException) -> BaseException:
        """What is to be raised for an error: this process's own, of which the others hear now, or another's."""
        own = isinstance(error, UserError)
        said = None if own else self._pulse.verdict() if isinstance(error, Exception) else self._pulse.heard()
        if said is not None and said.number != self.number:
            return said.error(self._pulse.names[said.number])
        self._pulse.tell(_failure(self.number, error))
        return error


_here = Ranks()


def here() -> Ranks:
    """This process among those of its run."""
    return _here


@contextmanager
def joined(cfg: DictConfig) -> Iterator[None]:
    """In the block the processes that a launcher has started are connected; one by itself is left as it is."""
    global _here
    place = places.here()
    if place.count == 1:
        yield
        return
    from dlma.trainer import collectives
    from dlma.trainer.pulse import Pulse

    store, other = collectives.meet(place)
    pulse = Pulse(other, place)
    ranks = _here = SeveralRanks(place, pulse)
    try:
        collectives.join(store, place, gpu=cfg.trainer.accelerator == "gpu")
        hosts = collectives.gathered([socket.gethostname()])
        if len(set(hosts)) > 1:
            pulse.names = [f"{name}, on {host}," for name, host in zip(pulse.names, hosts, strict=True)]
        yield
        collectives.wait()
    except BaseException as error:
        told = ranks.judged(error)
        if told is error:
            raise
        raise told from error
    else:
        collectives.leave()
    finally:
        pulse.close()
        _here = Ranks()


def unheard() -> AbstractContextManager[None]:
    """In the block a process beside the first says nothing: what there is to say, rank 0 says."""
    return screen.silent() if places.here().number else contextlib.nullcontext()


def _failure(number: int, error: BaseException) -> Failure:
    from dlma.trainer.pulse import Failure

    if isinstance(error, UserError):
        return Failure(number, "again" if isinstance(error, Unavailable) else "mistake", redaction.text(str(error)), 2)
    if isinstance(error, Exception):
        return Failure(number, "fault", redaction.text("".join(traceback.format_exception(error))), 1)
    code = error.code if isinstance(error, Stopped) else 130
    return Failure(number, "stop", "interrupted", code)


def _later(folder: Path) -> dict | None:
    """Stands for the writer of a stage once it is made: with several processes none is made anew in mid-run."""
    raise Unavailable(f"{folder.parent.name}/{folder.name} was damaged or pruned: run the same command again")
