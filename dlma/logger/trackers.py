"""What a tracker is, the one that adds nothing, and several at once.

metrics.csv and train.csv are written by the pipeline whatever the trackers are. Every tracker gets the same keys:
`train/<column of train.csv>`, `eval/<arm>/<metric>` of metrics.csv, `rounds/...`, `intermediate/...`, `sft/...`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from dlma.redaction import redact

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """One run of a tracker; each cell of a sweep is one."""

    def start(self, run_dir: Path, name: str, group: str | None, config: dict) -> None:
        """Opens the run; a sweep gives all its cells one `group`. Secrets in `config` are hidden here too."""

    def log(self, metrics: dict[str, float], step_key: str = "train/step") -> None:
        """One row; `metrics[step_key]` is the axis of all keys that share its first part ("train/")."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
        """A table of samples or pairs, under its name."""

    def finish(self, summary: dict[str, float], exit_code: int = 0) -> None:
        """Closes the run with its summary numbers; a failed cell gives an exit code other than 0."""


class CsvTracker:
    """The tracker that adds nothing to the CSV files of the run folder."""

    def start(self, run_dir: Path, name: str, group: str | None, config: dict) -> None:
        """Nothing to open."""

    def log(self, metrics: dict[str, float], step_key: str = "train/step") -> None:
        """Nothing to keep: train.csv holds the curves."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
        """Nothing to keep: the Parquet files of the run folder hold the rows."""

    def finish(self, summary: dict[str, float], exit_code: int = 0) -> None:
        """Nothing to close."""


class Trackers:
    """Several trackers as one: each is told everything, in the order of `logger=`."""

    def __init__(self, each: Sequence[Tracker]) -> None:
        self.each = list(each)

    def start(self, run_dir: Path, name: str, group: str | None, config: dict) -> None:
        """Opens each one's run."""
        for tracker in self.each:
            tracker.start(run_dir, name, group, config)

    def log(self, metrics: dict[str, float], step_key: str = "train/step") -> None:
        """A row for each; raises ValueError for one without its step."""
        if step_key not in metrics:
            raise ValueError(f"a row without its step {step_key}")
        for tracker in self.each:
            tracker.log(metrics, step_key)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
        """A table for each."""
        for tracker in self.each:
            tracker.table(name, columns, rows)

    def finish(self, summary: dict[str, float], exit_code: int = 0) -> None:
        """Closes each one's run."""
        for tracker in self.each:
            tracker.finish(summary, exit_code)


@contextmanager
def left_out(tracker: str, what: str) -> Iterator[None]:
    """A tracker never ends a run: whatever a server, a disk or its own process does costs one line."""
    try:
        yield
    except Exception as error:  # a tracker may die in many ways, with as many exceptions
        log.warning("%s: %s is left out: %s", tracker, what, one_line(error))


def one_line(error: Exception) -> str:
    """An error with its class, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def flat(config: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """A config as dotted keys and texts, secrets hidden; lists as they are written in Python."""
    found: dict[str, str] = {}
    for name, value in redact(dict(config)).items():
        inside = f"{path}{name}"
        found |= flat(value, f"{inside}.") if isinstance(value, dict) and value else {inside: str(value)}
    return found
