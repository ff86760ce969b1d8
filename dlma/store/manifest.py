"""Manifests: code, libraries and values that a stage came from, and the sha256 of every file."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq

from dlma import files
from dlma.redaction import redact
from dlma.store.shards import SCRATCH
from dlma.store.stage import Stage

_LIBRARIES = (
    *("torch", "transformers", "dlma", "numpy", "peft", "pyarrow"),
    *("pytorch-lightning", "safetensors", "tokenizers"),
)


def manifest(stage: Stage, version: int, notes: dict, started: str) -> dict:
    return {
        "name": stage.name,
        "key": stage.key,
        "version": version,
        "values": redact(stage.values),
        "uses": [{"name": used.name, "key": used.key} for used in stage.uses],
        "config": stage.config,
        "notes": notes,
        "git": _git(),
        "libraries": {"python": platform.python_version(), **{lib: _version(lib) for lib in _LIBRARIES}},
        **({"machine": stage.machine} if stage.machine else {}),
        "files": {name: _entry(stage.partial / name) for name in _contents(stage.partial)},
        "started": started,
        "ended": now(),
    }


def _contents(folder: Path) -> list[str]:
    """The files of a stage, relative; scratch and drafts that a kill left are not of it."""
    files.remove_drafts(folder)
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [name.as_posix() for name in names if name.parts[0] != SCRATCH]


def _entry(path: Path) -> dict:
    files.sync(path)
    entry = {"sha256": files.sha256_file(path), "size": path.stat().st_size}
    if path.suffix == ".parquet":
        entry["rows"] = pq.read_metadata(path).num_rows
    return entry


@functools.cache
def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def minor(library: str) -> str:
    return ".".join(_version(library).split(".")[:2])


@functools.cache
def _git() -> dict | None:
    """The commit of this code and whether files differ from it; None outside a repository that holds it."""
    here = Path(__file__).resolve().parent
    try:
        _git_says(here, "ls-files", "--error-unmatch", Path(__file__).name)
        dirty = _git_says(here, "status", "--porcelain", "--untracked-files=no")
        return {"commit": _git_says(here, "rev-parse", "HEAD"), "dirty": bool(dirty)}
    except (OSError, subprocess.SubprocessError):
        return None


def _git_says(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
