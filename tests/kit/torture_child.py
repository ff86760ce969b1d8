"""A command of dlma to which something is done at one moment; TORTURE holds the moment and the deed as JSON.

stage: `<name>/<key>`; in its work, `after` that many seconds, or `at` one of begin, manifest, rename, renamed (before
the manifest is put in place, before and after the stage is)
outputs: before this many files were put into the run folders; instead of a stage
do: the name of a signal; or one of DEEDS, with what it needs
log: a file to which each stage's name, beginning and end are added, and the moment of the deed
clock: seconds by which this process's clock is ahead
"""

import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

ASKED = json.loads(os.environ.get("TORTURE", "{}"))
_clock = time.time


def note(*words: object) -> None:
    """Add a line to the log; times are those of the system's steady clock, which processes share."""
    if "log" in ASKED:
        with open(ASKED["log"], "a") as log:
            log.write(json.dumps(words) + "\n")


def fill(place: str, room: int) -> None:
    """Leave only `room` bytes of the disk on which a folder lies."""
    with open(Path(place) / "ballast", "wb", buffering=0) as ballast:
        size = 1 << 20
        while size:
            try:
                ballast.write(b"\1" * size)
            except OSError:
                size //= 2
        ballast.truncate(max(0, ballast.tell() - room))


def limit(size: int) -> None:
    """Let no file of this process grow beyond `size` bytes: a full disk for whom may mount none."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def set_back(seconds: float) -> None:
    """Set the clock back for this process."""
    ASKED["clock"] = ASKED.get("clock", 0) - seconds


def remove(path: str) -> None:
    Path(path).unlink()


DEEDS = {"fill": fill, "limit": limit, "set_back": set_back, "remove": remove}


class Watch:
    """Sees what the process is about to do to files, and does its deed once, at its moment."""

    def __init__(self) -> None:
        self.stage, self.began = "", 0.0
        self.timer: threading.Timer | None = None
        self.done = self.renamed = False
        self.outputs = 0
        self.busy = threading.local()

    def __call__(self, event: str, args: tuple) -> None:
        if event not in ("os.mkdir", "os.rename", "open") or getattr(self.busy, "here", False):
            return
        self.busy.here = True
        try:
            self._see(event, args)
        finally:
            self.busy.here = False

    def _see(self, event: str, args: tuple) -> None:
        if self.renamed:
            self.renamed = False
            self._reached("renamed")
            self.stage = ""
        if event == "os.mkdir" and str(args[0]).endswith(".partial"):
            self._begin(name_of(args[0]))
        elif event == "os.rename":
            self._rename(Path(os.fsdecode(args[0])), Path(os.fsdecode(args[1])))

    def _begin(self, stage: str) -> None:
        if stage == self.stage:
            return
        self.stage, self.began = stage, time.monotonic()
        self._reached("begin")
        if ASKED.get("stage") == stage and "after" in ASKED:
            self.timer = threading.Timer(ASKED["after"], self._do)
            self.timer.daemon = True
            self.timer.start()

    def _rename(self, source: Path, target: Path) -> None:
        if source.name.endswith(".partial"):
            if self.timer is not None:
                self.timer.cancel()
            self._reached("rename")
            note("stage", name_of(source), self.began, time.monotonic())
            self.renamed = True
        elif target.name == "manifest.json" and target.parent.name.endswith(".partial"):
            self._reached("manifest")
        elif "outputs" in target.parts and ".json" not in target.parts[-2:]:
            self.outputs += 1
            note("output", str(target))
            if self.outputs == ASKED.get("outputs"):
                self._do()

    def _reached(self, moment: str) -> None:
        if (ASKED.get("stage"), ASKED.get("at")) == (self.stage, moment):
            self._do()

    def _do(self) -> None:
        if self.done:
            return
        self.done = True
        note("deed", self.stage, time.monotonic())
        deed = ASKED["do"]
        if deed in DEEDS:
            DEEDS[deed](*ASKED.get("with", []))
        else:
            os.kill(os.getpid(), signal.Signals[deed])


def name_of(partial: object) -> str:
    """`<name>/<key>` of a stage's folder at work."""
    return "/".join(Path(os.fsdecode(partial)).parts[-2:]).removesuffix(".partial")


if __name__ == "__main__":
    time.time = lambda: _clock() + ASKED.get("clock", 0)
    sys.addaudithook(Watch())
    from dlma.app import main

    sys.exit(main())
