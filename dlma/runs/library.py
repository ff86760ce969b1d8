"""The finished runs below a folder, by what their small files say; nothing is read that grows with the prompts.

A run is known by an id that is made of its folder: who asks for one names the id, never a path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dlma.errors import UserError
from dlma.metrics.summary import METRICS, Row, arms_of, main_arm
from dlma.records import content_id
from dlma.runs.cells import is_run_folder
from dlma.runs.folder import ANSWERS, STATUS, RunFolder
from dlma.runs.folder import METRICS as TABLE
from dlma.statistics.intervals import Estimate

DEPTH = 3  # levels of folders below the one that is looked through: outputs/SWEEP/CELL has two
_UNITS = {metric.name: metric.unit for metric in METRICS}


@dataclass(frozen=True)
class ListedRun:
    """A finished run; `name` is its folder below the one that was looked through, `rows` its metrics.csv."""

    id: str
    name: str
    folder: Path
    started: float
    method: str
    base: str
    seed: str
    alerts: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def arm(self) -> str:
        """What the run is about."""
        return main_arm(arms_of(self.rows))

    def estimate(self, metric: str, arm: str) -> Estimate | None:
        """A figure of an arm, where it was measured."""
        return next((row.estimate for row in self.rows if (row.metric, row.arm) == (metric, arm)), None)


class Library:
    """A folder with runs. `look` reads again only what has changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[Path, tuple[tuple, ListedRun | str]] = {}

    def look(self) -> tuple[list[ListedRun], list[str]]:
        """The runs, the last started first, and a line for each folder that is left out and why."""
        known = {folder: self._one(folder) for folder in run_folders(self.root)}
        self._known = known
        found = [one for _, one in known.values()]
        runs = [one for one in found if isinstance(one, ListedRun)]
        return sorted(runs, key=lambda run: (-run.started, run.name)), [one for one in found if isinstance(one, str)]

    def run(self, name: str) -> ListedRun | None:
        """The run of an id, as it was when last looked at."""
        found = (one for _, one in self._known.values())
        return next((one for one in found if isinstance(one, ListedRun) and one.id == name), None)

    def _one(self, folder: Path) -> tuple[tuple, ListedRun | str]:
        stamp = tuple(_stamp(folder / name) for name in (STATUS, TABLE, ANSWERS))
        if (before := self._known.get(folder)) is not None and before[0] == stamp:
            return before
        name = str(folder.relative_to(self.root)) if folder != self.root else folder.resolve().name
        try:
            return stamp, _read(folder, name)
        except (UserError, OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException) as reason:
            return stamp, f"{name}: left out: {(str(reason).splitlines() or [type(reason).__name__])[0]}"


def run_folders(root: Path, depth: int = DEPTH) -> Iterator[Path]:
    """The folders that a run wrote into, at or below one; what lies inside a run, or is hidden, is not looked at.

    One that may not be read is among them: what it holds is not known.
    """
    try:
        if is_run_folder(root):
            yield root
            return
        inside = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    except PermissionError:
        yield root
        return
    for name in inside if depth else ():
        yield from run_folders(root / name, depth - 1)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _read(folder: Path, name: str) -> ListedRun:
    run = RunFolder(folder)
    status = run.status()
    if (state := status.get("status", "done")) != "done":
        raise ValueError(f"it is {state}, not finished")
    if (missing := run.missing) is not None:
        raise ValueError(f"it has no {missing}")
    pq.read_metadata(folder / ANSWERS)  # its end is there, and so all of it is
    about, alerts = run.about(), (status.get("result") or {}).get("alerts", [])
    return ListedRun(
        id=content_id(str(folder.resolve())),
        name=name,
        folder=folder,
        started=float(status.get("started") or 0.0),
        method=about["method"],
        base=about["base"],
        seed=about["seed"],
        alerts=tuple(map(str, alerts)),
        rows=tuple(map(_row, run.metrics())),
    )


def _row(line: dict[str, str]) -> Row:
    arm, _, metric = line["metric"].partition("/")
    value, low, high = (float(line[name] or "nan") for name in ("mean", "low", "high"))
    return Row(metric, arm, Estimate(value, low, high, int(line["n"])), unit=_UNITS.get(metric, ""))
