"""What the store holds and the removal of one of its stages."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from dlma import files
from dlma.store import owned
from dlma.store.stage import MANIFEST
from dlma.store.store import VERSION, Store

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
    return [_holding(folder) for folder in owned.stage_folders(root, VERSION)]


def _holding(folder: Path) -> Holding:
    manifest = files.read_checked(folder / MANIFEST)
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
    """False if another process works on the stage, or has since it was listed."""
    with store.lock(holding.stage, wait=False) as held:
        still = held and owned.is_stage_folder(holding.folder)
        if not still or _state(holding.folder, files.read_checked(holding.folder / MANIFEST)) != holding.state:
            return False
        shutil.rmtree(holding.folder)
        return True
