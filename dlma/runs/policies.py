"""Retention of policies (`store.keep_policies`): whose weights stay in the store and in the run folders."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from dlma import files
from dlma.runs import publish
from dlma.store import owned
from dlma.store.fingerprint import key_of
from dlma.store.stage import MANIFEST, Stage, is_weights
from dlma.store.store import Store


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
    have ended, as they are now, the one with the highest score keeps its weights; those of the others go, here and in
    the folders where they were `published`. A folder is that of the policy published there last. Manifests and records
    stay, so nothing is computed again unless the weights themselves are wanted.
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
        gone = _enter(board, stage.key, score, published)
        board[stage.key]["kept"] = not stage.pruned
        kept = [key for key, row in board.items() if row["kept"] and key not in gone]
        best = min(kept or [stage.key], key=lambda key: (-board[key]["score"], key))
        pruned = []
        for key in sorted(board.keys() - {best}):
            pruned += _prune(store, stage.folder.with_name(key), is_weights)
            _unpublish(board[key])
            board[key]["kept"] = False
        board = {key: row for key, row in board.items() if key not in gone}
        files.write_checked(board_file, board)
    return pruned


def _board(file: Path, stage: Stage) -> dict[str, dict]:
    """Of each policy of a group in the store: its score, where it is published, of which cells it is, if it is kept.

    A row of another form is left out.
    """
    rows = files.read_checked(file).items()
    known = {key: row for key, row in rows if isinstance(row, dict) and isinstance(row.get("published"), list)}
    there = {key: row for key, row in known.items() if owned.is_key(key) and stage.folder.with_name(key).is_dir()}
    return {key: {"cells": list(row["published"]), "kept": True, **row} for key, row in there.items()}


def _enter(board: dict[str, dict], key: str, score: float, published: Path | None) -> set[str]:
    """Put a policy on the board; the folder where it was published is no other's any more.

    Returns the policies that were published there alone: they are no cell's any more, as the cell has been run anew.
    """
    place = [str(published.absolute())] if published else []
    for row in board.values():
        row["published"] = [old for old in row["published"] if old not in place]
        row["cells"] = [old for old in row["cells"] if old not in place]
    gone = {other for other, row in board.items() if other != key and place and not row["cells"]}
    others = board[key]["published"] if key in board else []
    cells = board[key]["cells"] if key in board else []
    held = {"published": others + place, "cells": cells + place, "kept": True}
    board[key] = {"score": -math.inf if math.isnan(score) else score, **held}
    return gone


def _prune(store: Store, folder: Path, is_dropped: Callable[[str], bool]) -> list[str]:
    with files.guarded(store.root, "store.root"), store.lock(folder):
        manifest = files.read_checked(folder / MANIFEST)
        known = set(manifest.get("pruned", []))
        inside = {name for name in manifest.get("files", {}) if files.lies_in(folder, name)}
        names = {name for name in inside if is_dropped(name)} - known
        if not names:
            return []
        # The manifest goes first: a kill in between leaves a file that is not read, not a file that is missed.
        files.write_checked(folder / MANIFEST, {**manifest, "pruned": sorted(known | names)})
        for name in sorted(names):
            (folder / name).unlink(missing_ok=True)
    return [f"{folder.parent.name}/{folder.name}: weights deleted (store.keep_policies)"]


def _is_adapter(name: str) -> bool:
    return Path(name).name == "adapter_model.safetensors"


def _unpublish(row: dict) -> None:
    """Removes the weights from the folders where runs wrote them, as far as they still are as written."""
    for place in row["published"]:
        publish.withdraw_weights(Path(place))
    row["published"] = []
