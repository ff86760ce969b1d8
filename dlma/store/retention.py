"""What the store holds and what it may let go: the rule `store.keep_policies`."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Literal

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from dlma import files
from dlma.store.store import Store
from dlma.errors import UserError
from dlma.store.fingerprint import key_of
from dlma.store.stage import MANIFEST, Stage, is_weights

DAY = 86400.0


@dataclass(frozen=True)
class Holding:
    """One folder of the store; `rows` counts those of its Parquet files, `age` is in seconds."""

    folder: Path
    state: str
    size: int
    rows: int | None
    age: float

    @property
    def stage(self) -> Path:
        """The folder that the finished stage has or would have."""
        return self.folder.with_name(self.folder.name.split(".")[0])




def holdings(root: Path) -> list[Holding]:
    """Every stage folder of a store, by name and key."""
    folders = sorted(path for path in root.glob("*/*") if path.is_dir() and not path.parent.name.startswith("."))
    return [_holding(folder) for folder in folders]


def _holding(folder: Path) -> Holding:
    manifest = files.read_json(folder / MANIFEST)
    stats = [stat for path in [folder, *folder.rglob("*")] if (stat := _stat(path))]
    rows = [entry["rows"] for entry in manifest.get("files", {}).values() if "rows" in entry]
    newest = max((stat.st_mtime for stat in stats), default=0.0)
    return Holding(
        folder=folder,
        state=_state(folder, manifest),
        size=sum(stat.st_size for stat in stats if S_ISREG(stat.st_mode)),
        rows=sum(rows) if rows else None,
        age=max(0.0, time.time() - newest),
    )


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:  # another process has just removed or renamed it
        return None


def _state(folder: Path, manifest: dict) -> str:
    if folder.name.endswith(".partial"):
        return "partial"
    if ".damaged-" in folder.name or not manifest:
        return "damaged"
    return "pruned" if manifest.get("pruned") else "done"


def remove(store: Store, holding: Holding) -> bool:
    """False if another process works on the stage."""
    with store.lock(holding.stage, wait=False) as held:
        if held:
            shutil.rmtree(holding.folder)
        return held










def keep(
    store: Store,
    rule: Literal["all", "adapter", "best"],
    stage: Stage,
    *,
    score: float,
    group: Path,
    published: Path | None = None,
) -> list[str]:
    """Applies `store.keep_policies` when a cell has ended; returns one line for each stage whose weights were deleted.

    `adapter`: of a stage with adapter weights only these stay. `best`: of all cells of `group` (a sweep's folder) that
    have ended, the one with the highest score keeps its weights; those of the others go, here and in the folders
    where they were `published`. A folder is that of the policy published there last. Manifests and records stay, so
    nothing is computed again unless the weights themselves are wanted.
    """
    if rule == "adapter":
        return _keep_adapter(store, stage)
    if rule == "best":
        return _keep_best(store, stage, score, group, published)
    return []


def _keep_adapter(store: Store, stage: Stage) -> list[str]:
    if not any(_is_adapter(name) for name in stage.manifest.get("files", {})):
        return []
    return _prune(store, stage.folder, lambda name: is_weights(name) and not _is_adapter(name))


def _keep_best(store: Store, stage: Stage, score: float, group: Path, published: Path | None) -> list[str]:
    board_file = store.root / ".groups" / f"{key_of(str(group.absolute()))}.json"
    with files.guarded(store.root, "store.root"), store.lock(board_file):
        board = _board(board_file, stage)
        _enter(board, stage.key, score, published)
        best = min(board, key=lambda key: (-board[key]["score"], key))
        pruned = []
        for key in sorted(board.keys() - {best}):
            pruned += _prune(store, stage.folder.with_name(key), is_weights)
            _unpublish(board[key])
        files.write_json(board_file, board)
    return pruned


def _board(file: Path, stage: Stage) -> dict[str, dict]:
    """Score and published folders of each policy of a group that is in the store; a row of another form is left out."""
    rows = files.read_json(file).items()
    known = {key: row for key, row in rows if isinstance(row, dict) and isinstance(row.get("published"), list)}
    return {key: row for key, row in known.items() if stage.folder.with_name(key).is_dir()}


def _enter(board: dict[str, dict], key: str, score: float, published: Path | None) -> None:
    """Put a policy on the board; the folder where it was published is no other's any more."""
    place = [str(published.absolute())] if published else []
    for row in board.values():
        row["published"] = [old for old in row["published"] if old not in place]
    others = board[key]["published"] if key in board else []
    board[key] = {"score": -math.inf if math.isnan(score) else score, "published": others + place}


def _prune(store: Store, folder: Path, is_dropped: Callable[[str], bool]) -> list[str]:
    with files.guarded(store.root, "store.root"), store.lock(folder):
        manifest = files.read_json(folder / MANIFEST)
        known = set(manifest.get("pruned", []))
        names = {name for name in manifest.get("files", {}) if is_dropped(name)} - known
        if not names:
            return []
        # The manifest goes first: a kill in between leaves a file that is not read, not a file that is missed.
        files.write_json(folder / MANIFEST, {**manifest, "pruned": sorted(known | names)})
        for name in sorted(names):
            (folder / name).unlink(missing_ok=True)
    return [f"{folder.parent.name}/{folder.name}: weights deleted (store.keep_policies)"]


def _is_adapter(name: str) -> bool:
    return Path(name).name == "adapter_model.safetensors"


def _unpublish(row: dict) -> None:
    for place in row["published"]:
        for path in Path(place).rglob("*"):
            if path.is_file() and is_weights(path.name):
                path.unlink()
    row["published"] = []
