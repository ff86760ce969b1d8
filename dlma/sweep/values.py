"""values.parquet beside a results.csv: the value of every seed and prompt, so that a test is made anew without a run.

Numbers only: a prompt is the first 8 bytes of the SHA-256 of its id, as a number; no text of a prompt or an answer.
What is read can be estimated and compared as the runs were, and joined with further seeds of runs (joined_seeds.py).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dlma import files
from dlma.runs.cells import Arm, Cell
from dlma.sweep.results import Settings, settings_of, settings_text
from dlma.sweep.settings import SHARED_ARMS, Setting

NAMES = ("base", "method", "settings", "arm", "metric")  # few values each, so that they are stored once
NOWHERE = Path()  # the folder of a run of which only values are left


class Hashed(str):
    """A prompt of which the hash alone is known: its number, in digits."""


def write(path: Path, rows: Sequence[Setting], metrics: Collection[str]) -> None:
    """Every value of these metrics; where no run has any, no file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = [part for row in rows for part in _parts(row, metrics)]
    if not parts:
        return
    table = pa.concat_tables([pa.table(part) for part in parts])
    for name in NAMES:
        place = table.column_names.index(name)
        table = table.set_column(place, name, table[name].dictionary_encode())
    with files.atomic(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def _parts(row: Setting, metrics: Collection[str]) -> Iterator[dict]:
    """The columns of each seed and metric of a row."""
    for seed, arm in row.arms.items():
        prompts = np.array([int(hashed(prompt)) for prompt in arm.prompts], dtype=np.uint64)
        for metric, numbers in arm.numbers.items():
            if metric not in metrics:
                continue
            measured = ~np.isnan(numbers[:, 0])
            n = int(measured.sum())
            names = (row.base, row.method, settings_text(row.settings), row.arm, metric)
            yield {
                **{column: [name] * n for column, name in zip(NAMES, names, strict=True)},
                "seed": np.full(n, seed),
                "prompt": prompts[measured],
                "value": numbers[measured, 0],
                "weight": numbers[measured, 1],
            }


def hashed(prompt: str) -> Hashed:
    """A prompt by its hash, which is its own."""
    if isinstance(prompt, Hashed):
        return prompt
    return Hashed(int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big"))


def read(path: Path) -> list[Setting]:
    """The rows again, each with its seeds' numbers by hashed prompt; they can be estimated and compared as before."""
    from dlma.store.shards import read_table

    rows: dict[tuple[str, str, Settings, str], dict[int, dict[str, dict[str, tuple[float, float]]]]] = {}
    for line in read_table(path).to_pylist():
        row = (line["base"], line["method"], settings_of(line["settings"]), line["arm"])
        metric = rows.setdefault(row, {}).setdefault(line["seed"], {}).setdefault(line["metric"], {})
        metric[Hashed(line["prompt"])] = (line["value"], line["weight"])
    return with_shared_arms([_setting(*row, seeds) for row, seeds in rows.items()])


def _setting(base: str, method: str, settings: Settings, arm: str, seeds: dict[int, dict]) -> Setting:
    runs = {}
    for seed, tables in seeds.items():
        prompts = tuple(dict.fromkeys(prompt for table in tables.values() for prompt in table))
        nothing = (math.nan, math.nan)
        numbers = {name: np.array([table.get(p, nothing) for p in prompts]) for name, table in tables.items()}
        arms = {arm: Arm(prompts, numbers, digest="", exact="")}
        runs[seed] = Cell(
            NOWHERE, method, "done", None, 0.0, 0, dict(settings), method=method, base=base, seed=seed, arms=arms
        )
    return Setting(base, method, settings, arm, dict(settings), runs)


def with_shared_arms(rows: Sequence[Setting]) -> list[Setting]:
    """The rows; runs without a folder with the base's answers, which they are held against, if the base has one row."""
    arms: dict[tuple[str, str], list[Setting]] = {}
    for row in rows:
        if row.arm in SHARED_ARMS:
            arms.setdefault((row.base, row.arm), []).append(row)
    shared = {name: found[0] for name, found in arms.items() if len(found) == 1}
    return [replace(row, runs={seed: _beside(cell, shared) for seed, cell in row.runs.items()}) for row in rows]


def _beside(cell: Cell, shared: dict[tuple[str, str], Setting]) -> Cell:
    if cell.folder != NOWHERE:
        return cell
    rows = [shared[cell.base, arm] for arm in SHARED_ARMS if (cell.base, arm) in shared]
    return replace(cell, arms=cell.arms | {row.arm: row.arms[cell.seed] for row in rows if cell.seed in row.runs})
