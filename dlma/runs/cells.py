"""Run folders read from their own files: what became of each run, and its numbers per arm, metric and prompt."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dlma.cost.spent import Costs
from dlma.errors import UserError
from dlma.metrics.summary import METRICS, Metric, per_prompt
from dlma.records import EvalRow
from dlma.runs.costs import costs_of
from dlma.runs.folder import ANSWERS, METRIC_VALUES, STATUS, TRAJECTORY_ANSWERS, VERDICTS, VERSUS_VERDICTS, RunFolder


@dataclass(frozen=True)
class Arm:
    """The numbers of one arm of one run: per metric a (prompts, 2) array of value and weight, nan if not measured.

    `prompts` are the ids of prompts, and of test items of metrics that have their own. `digest` is of the answers,
    `exact` of their likelihoods too, which a passage in another company of prompts moves by a last digit.
    """

    prompts: tuple[str, ...]
    numbers: dict[str, np.ndarray]
    digest: str
    exact: str


@dataclass(frozen=True)
class Cell:
    """One run folder. `config` is flat, dotted; `arms` is empty unless the run is done and its files are there.

    `metrics` are those measured beyond summary.METRICS; `verdicts` holds a judge's outcome per prompt, by
    (arm, against, judge); `costs` is None where the folder does not say.
    """

    folder: Path
    name: str
    status: str
    reason: str | None
    started: float
    number: int
    overrides: dict[str, str]
    method: str = ""
    base: str = ""
    seed: int = 0
    config: dict[str, object] = field(default_factory=dict)
    arms: dict[str, Arm] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    verdicts: dict[tuple[str, str, str], dict[str, str]] = field(default_factory=dict)
    costs: Costs | None = None


_UNREADABLE = (
    *(UserError, OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration),
    *(RecursionError, csv.Error),
)


def collect(patterns: Sequence[str | Path]) -> list[Cell]:
    """The cells in the folders that the patterns name (`outputs/**`, a sweep's folder, a run's), each once.

    They come in the order of their sweep, runs outside of one by their names.

    Raises UserError where a pattern finds no run folder.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        inside = [folder for path in paths(pattern) for folder in _runs(path)]
        if not inside:
            raise UserError(f"runs={pattern}: no run folder there (a folder with {STATUS} or {ANSWERS})")
        found |= dict.fromkeys(inside)
    sweeps = list(dict.fromkeys(folder.parent for folder in found))
    cells = [cell for cell in map(read_cell, found) if cell.overrides.get("mode", "run") == "run"]
    return sorted(cells, key=lambda cell: (sweeps.index(cell.folder.parent), cell.number, _in_numbers(cell.name)))


def paths(pattern: str | Path) -> list[Path]:
    """What a pattern names; a path that is there names itself, whatever letters it has."""
    found = [pattern] if os.path.exists(pattern) else sorted(glob.glob(str(pattern), recursive=True))
    return [Path(path) for path in found]


def _runs(path: Path) -> Iterator[Path]:
    inside = [path] if is_run_folder(path) else sorted(path.iterdir()) if path.is_dir() else []
    return (folder.resolve() for folder in inside if is_run_folder(folder))


def _in_numbers(name: str) -> list[str | float]:
    """A name as it sorts for people: pairs=250 before pairs=1000."""
    return [float(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+(?:\.\d+)?)", name))]


def is_run_folder(path: Path) -> bool:
    """Whether a run left something here, whatever became of it."""
    return (path / STATUS).is_file() or (path / ANSWERS).is_file()


def read_cell(folder: Path) -> Cell:
    """One run folder as it stands; a run whose files are missing or unreadable has a reason and no arms."""
    cell = Cell(folder, folder.name, "unreadable", f"{STATUS}: not a run's", 0.0, 0, {})
    try:
        status = RunFolder(folder).status()
        cell = _by_status(folder, status)
        if cell.status == "done":
            cell = _with_results(cell, (status.get("result") or {}).get("summary", []))
    except _UNREADABLE as reason:
        lines = str(reason).splitlines() or [type(reason).__name__]
        return replace(cell, status="unreadable", reason=f"{lines[0]}")
    return cell


def _by_status(folder: Path, status: dict) -> Cell:
    overrides = dict(_split(line) for line in status.get("overrides", []))
    reason = status.get("reason")
    return Cell(
        folder=folder,
        name=folder.name,
        status=str(status.get("status", "done")),
        reason=None if reason is None else str(reason),
        started=float(status.get("started") or 0.0),
        number=int(status.get("number") or 0),
        overrides=overrides,
        method=overrides.get("method", ""),
        seed=int(overrides.get("seed", 0)),
    )


def _split(line: str) -> tuple[str, str]:
    key, _, value = line.partition("=")
    return key.lstrip("+~"), value.strip("'\"")


def _with_results(cell: Cell, summary: Sequence[dict]) -> Cell:
    run = RunFolder(cell.folder)
    first, recorded = run.about(), run.recorded
    on_the_way = run.answers(TRAJECTORY_ANSWERS) if (cell.folder / TRAJECTORY_ANSWERS).is_file() else []
    evals, scores = run.answers() + on_the_way, run.rows(METRIC_VALUES)
    names, kept = list(dict.fromkeys(row.arm for row in evals)), sorted({row.arm for row in on_the_way})
    told = {name: f"{i} of {len(kept)}" for i, name in enumerate(kept, 1)}  # seeds may have kept them at other steps
    arms = {
        told.get(name, name): read_arm(
            [row for row in evals if row.arm == name], [row for row in scores if row["arm"] == name]
        )
        for name in names
    }
    labels = {row["metric"]: row.get("label", "") for row in summary}
    about: dict[str, Any] = {"method": first["method"], "base": first["base"], "seed": int(first["seed"])}
    metrics = _further(scores, summary)
    verdicts = _verdicts([*run.rows(VERDICTS), *run.rows(VERSUS_VERDICTS)], labels)
    found: dict[str, Any] = {"arms": arms, "metrics": metrics, "verdicts": verdicts, "costs": costs_of(run)}
    return replace(cell, **about, config=flat(recorded.values), **found)


def read_arm(rows: Sequence[EvalRow], scores: Sequence[dict] = ()) -> Arm:
    """The numbers of one arm, per prompt or item, averaged over its answers."""
    ids = [row.prompt_id for row in rows] + [score["item"] for score in scores]
    prompts = tuple(dict.fromkeys(ids))
    tables = {metric.name: per_prompt(metric, list(rows)) for metric in METRICS}
    for name in dict.fromkeys(score["metric"] for score in scores):
        tables[name] = _means([score for score in scores if score["metric"] == name])
    nothing = (math.nan, math.nan)
    numbers = {
        name: np.array([found.get(prompt, nothing) for prompt in prompts]) for name, found in tables.items() if found
    }
    answers = [(row.prompt_id, row.answer, row.harmlessness, row.sentiment) for row in rows]
    return Arm(prompts, numbers, _digest(answers), _digest([answers, [row.logp for row in rows]]))


def _digest(value: list) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _means(scores: Sequence[dict]) -> dict[str, tuple[float, float]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for score in scores:
        found.setdefault(score["item"], []).append((score["value"], score["weight"]))
    return {item: tuple(sum(column) / len(pairs) for column in zip(*pairs)) for item, pairs in found.items()}


def _further(scores: Sequence[dict], summary: Sequence[dict]) -> dict[str, Metric]:
    """What further metrics measured, as the run's summary shows it; how it is averaged follows from its own figure."""
    shown = {row["metric"]: row for row in reversed(summary)}
    found = {}
    for name in dict.fromkeys(score["metric"] for score in scores):
        row = shown.get(name, {"unit": "", "arm": ""})
        mine = [score for score in scores if score["metric"] == name and score["arm"] == row["arm"]]
        of_items = len({score["item"] for score in mine}) > 1  # of one item, a whole run, there is no Wilson interval
        kind = "share" if row["unit"] == "share" and of_items else _kind(mine, row)
        label, better = row.get("label", ""), row.get("better", "")
        found[name] = Metric(name, label or name, row["unit"], kind, lambda _: None, better)
    return found


def _kind(scores: Sequence[dict], row: dict) -> str:
    if all(score["weight"] == 1 for score in scores):
        return "mean"
    ratio = sum(score["value"] for score in scores) / sum(score["weight"] for score in scores)
    value = row["estimate"]["value"]
    return "exp_ratio" if value is not None and math.isclose(math.exp(ratio), value, rel_tol=1e-6) else "ratio"


def _verdicts(rows: Sequence[dict], labels: dict[str, str]) -> dict[tuple[str, str, str], dict[str, str]]:
    """Outcomes per prompt by (arm, against, judge); a judge that is also the scorer is named so."""
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        label = labels.get(f"win_rate/{row['judge']}/{row['against']}", "")
        judge = row["judge"] + (" (self-reported)" if "self-reported" in label else "")
        found.setdefault((row["arm"], row["against"], judge), {})[row["prompt_id"]] = row["outcome"]
    return found


def flat(tree: object, path: str = "") -> dict[str, object]:
    """A nested config as dotted leaves; a list is a leaf."""
    if not isinstance(tree, dict):
        return {path: tree}
    inside = [flat(value, f"{path}.{key}" if path else str(key)) for key, value in tree.items()]
    return {key: value for part in inside for key, value in part.items()}
