"""A run on the lab by this code and by an earlier commit's: nothing of dlma is imported before it is known whose."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

from benchmarks.clock import Clock
from benchmarks.shapes import ROOT, work_folder

EARLIER = "cfc1c6d"  # before the engine met a real model
SIZES = {"data.train": 512, "data.validation": 32, "data.test": 128}
SETTINGS = {"method": "dlma", "logger": "csv", "name": "run", "trainer.threads": 1, **SIZES}


def run(clock: Clock, tree: Path) -> None:
    """A run on the lab by the code in a folder."""
    sys.path.insert(0, str(tree))
    from dlma import app

    if not Path(app.__file__).is_relative_to(tree):
        raise RuntimeError(f"{app.__file__} is not of {tree}")
    with clock.span("work"):
        code = app.main([f"{key}={value}" for key, value in SETTINGS.items()])
    if code:
        raise RuntimeError(f"the run ended with exit code {code}")


def tree_of(commit: str | None) -> Path | None:
    """The files of a commit, or of this checkout; None where the repository does not have it."""
    if commit is None:
        return ROOT
    place = work_folder() / f"tree-{commit}"
    if not place.is_dir():
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            packed = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
            place.mkdir(parents=True)
            subprocess.run(["tar", "-x"], cwd=place, input=packed, check=True)
    return place if place.is_dir() else None
