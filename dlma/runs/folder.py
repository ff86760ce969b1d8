"""A run folder: the names of its files, what a finished run has, and its records as they stand."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from dlma import csv_text, files, records
from dlma.config.recorded import Recorded
from dlma.errors import UserError
from dlma.records import EvalRow, Prompt, ScoredPair
from dlma.store.owned import MANIFEST, TRAIN

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

RECORD, STATUS = "files.json", "status.json"
START, MULTIRUN = ".started.json", "multirun.yaml"  # in a sweep's folder while it runs; the second is Hydra's
CONFIG, COSTS = "config.yaml", "costs.json"
CHOSEN = "chosen.json"  # what the config left to the machine (runs/settled.py); of a sweep, in its own folder
PROMPTS, PAIRS, SCORED, ANSWERS = "prompts.parquet", "pairs.parquet", "scored.parquet", "answers.parquet"
TOKENS = "tokens.parquet"  # R of some pairs token by token
METRICS, CATEGORIES, ROUNDS = "metrics.csv", "categories.csv", "rounds.csv"
REWARD_TRAIN, REWARDS = "reward.csv", "rewards.parquet"
# Of judges and of further metrics, where there are any.
VERDICTS, METRIC_VALUES = "verdicts.parquet", "metric_values.parquet"
TRAJECTORY, TRAJECTORY_ANSWERS = "trajectory.csv", "trajectory.parquet"  # of policies on the way (intermediate=K)
VERSUS, VERSUS_VERDICTS = "versus.csv", "versus.parquet"  # on other methods' answers (mode=versus)
AGREEMENT = "agreement.parquet"  # mode=agreement
WORKBENCH, WORKBENCH_PAGE = "workbench.csv", "workbench.html"  # mode=workbench
REPORT, REPORT_MARKDOWN, REPORT_LATEX, RESULTS = "report.html", "report.md", "report.tex", "results.csv"
SERVER_LOG = "server.log"  # what servers said that were started for a stage (sampler.start)
POLICY, TUNED = "policy", "tuned"
REWARD = "reward"  # a trained reward model (mode=reward)
TREES = (POLICY, TUNED, REWARD)
NAMES = (  # what modes write into a run folder
    *(STATUS, RECORD, MANIFEST, CONFIG, CHOSEN, COSTS, REPORT, REPORT_MARKDOWN, REPORT_LATEX, RESULTS),
    *(METRICS, TRAIN, REWARD_TRAIN, TRAJECTORY, ROUNDS, CATEGORIES, VERSUS, WORKBENCH),
    *(PROMPTS, PAIRS, SCORED, TOKENS, ANSWERS, VERDICTS, METRIC_VALUES, REWARDS),
    *(TRAJECTORY_ANSWERS, VERSUS_VERDICTS, AGREEMENT),
    *(WORKBENCH_PAGE, SERVER_LOG, MULTIRUN, *TREES),
)
_ABOUT = ("method", "base", "seed")  # columns of metrics.csv
FINISHED = (CONFIG, MANIFEST, METRICS, PROMPTS, ANSWERS)  # what every finished run has


_AGAIN = "run its command again, which publishes it anew from the store"
_MEANT = f"{_AGAIN}; where the change was meant, remove {RECORD}"


def record(folder: Path) -> dict[str, dict]:
    """Size and sha256 of each file that runs wrote into a folder; an entry of another form is left out."""
    found = files.read_checked(folder / RECORD).items()
    return {name: entry for name, entry in found if _is_entry(name, entry)}


def _is_entry(name: str, entry: object) -> bool:
    parts = PurePosixPath(name).parts
    return isinstance(entry, dict) and {"sha256", "size"} <= entry.keys() and bool(parts) and not {"..", "/"} & {*parts}


def is_below(name: str, place: str) -> bool:
    """Whether a file is the place itself or lies below it."""
    return name == place or name.startswith(f"{place}/")


def fault(path: Path, entry: dict) -> str | None:
    """What is not as written in a file, in words: `is missing`; None if nothing is."""
    try:
        if not path.is_file():
            return "is missing"
        if path.stat().st_size != entry["size"]:
            return f"has {path.stat().st_size} bytes, not {entry['size']}"
        return None if files.sha256_file(path) == entry["sha256"] else "has another content than when it was written"
    except OSError as reason:
        return f"cannot be read ({reason.strerror})"


class RunFolder:
    """A run's folder, read as its run wrote it; nothing is computed here."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _entries(self) -> dict[str, dict]:
        found = record(self.path)
        if not found and (self.path / RECORD).is_file():
            raise UserError(f"{self.path / RECORD}: is damaged; {_MEANT}")
        return found

    def sound(self, place: str) -> Path:
        """The path of a file or a folder. Raises UserError where it is not as the run wrote it, if the run says how."""
        path = self.path / place
        entries = {name: entry for name, entry in self._entries.items() if is_below(name, place)}
        found = ((name, fault(self.path / name, entry)) for name, entry in entries.items() if path.exists())
        for name, wrong in found:
            if wrong:
                raise UserError(f"{self.path / name}: {wrong}; {_MEANT}")
        return path

    @property
    def missing(self) -> str | None:
        """The first file that a finished run has and this folder has not; None where it is that of a finished run."""
        return next((name for name in FINISHED if not (self.path / name).is_file()), None)

    def need_finished(self, option: str) -> None:
        """Raise UserError unless this is the folder of a finished run; option: what named it."""
        if (name := self.missing) is not None:
            raise UserError(f"{option}={self.path}: not the folder of a finished run: it has no {name}")

    def status(self) -> dict:
        """What became of the run; nothing where the folder does not say. Raises UserError where it is damaged."""
        path = self.path / STATUS
        found = files.read_checked(path)
        if not found and path.is_file():
            raise UserError(f"{path}: is damaged; {_AGAIN}")
        return found

    def manifest(self) -> dict:
        """Where each stage came from, by its name; nothing where no file says. Raises UserError for a damaged one."""
        if not (self.path / MANIFEST).is_file():
            return {}
        with self._read(MANIFEST) as path:
            found = json.loads(path.read_bytes())
            if not (isinstance(found, dict) and all(isinstance(stage, dict) for stage in found.values())):
                raise ValueError("it holds no stages")
            return found

    @cached_property
    def recorded(self) -> Recorded:
        """Its config. Raises UserError where there is none."""
        return Recorded(self.sound(CONFIG))

    def metrics(self) -> list[dict[str, str]]:
        """The rows of metrics.csv. Raises UserError where it is missing or none."""
        with self._read(METRICS) as path, path.open(encoding="utf-8", newline="") as rows:
            found = csv_text.read(rows)
            if not all(row.keys() >= {*_ABOUT} and None not in row.values() for row in found):
                raise ValueError("a row lacks columns")
            return found

    def about(self) -> dict[str, str]:
        """Method, base and seed, as every row of metrics.csv has them. Raises UserError where there is no row."""
        if not (rows := self.metrics()):
            raise UserError(f"{self.path / METRICS}: no rows; {_AGAIN}")
        return rows[0]

    def prompts(self) -> list[Prompt]:
        """The prompts that were read. Raises UserError where there are none to be read."""
        return self._records(Prompt, PROMPTS)

    def scored(self) -> list[ScoredPair]:
        """The scored pairs. Raises UserError where there are none to be read."""
        return self._records(ScoredPair, SCORED)

    def answers(self, name: str = ANSWERS) -> list[EvalRow]:
        """The answers of all arms; a column that an older run lacks has its default. Raises UserError."""
        known = {field.name for field in fields(EvalRow)}
        with self._read(name):
            return [EvalRow(**{k: v for k, v in row.items() if k in known}) for row in self.table(name).to_pylist()]

    def rows(self, name: str) -> list[dict]:
        """The rows of a Parquet file that not every run has; none where it is not there. Raises UserError."""
        return self.table(name).to_pylist() if (self.path / name).is_file() else []

    def table(self, name: str) -> pa.Table:
        """A Parquet file. Raises UserError where it is not there, or is none."""
        import pyarrow as pa

        from dlma.store.shards import read_table

        with self._read(name) as path:
            try:
                return read_table(path)
            except pa.ArrowException as reason:
                raise ValueError(reason) from reason

    def _records(self, kind: type[T], name: str) -> list[T]:
        with self._read(name):
            return records.from_table(kind, self.table(name))

    @contextmanager
    def _read(self, name: str) -> Iterator[Path]:
        """The path of a sound file, to be read inside; what goes wrong there is told of the file."""
        if not (self.path / name).is_file():
            raise UserError(f"{self.path / name}: is missing; {_AGAIN}")
        path = self.sound(name)
        try:
            yield path
        except (OSError, ValueError, LookupError, TypeError, RecursionError, csv.Error) as reason:
            said = (str(reason).splitlines() or [type(reason).__name__])[0]
            raise UserError(f"{path}: cannot be read: {said}; {_AGAIN}") from reason
