"""Copies of stages in a run folder, under readable names; a target appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dlma import files
from dlma.store.stage import Stage, is_weights

_OPTION = "hydra.run.dir"


def publish(stage: Stage, file: str, target: Path) -> Path:
    """Copies one record of a stage to `target`; an older target is replaced."""
    with files.guarded(target.parent, _OPTION):
        files.write_bytes(target, stage.read(file))
    return target


def publish_tree(stage: Stage, folder: str, target: Path) -> Path:
    """Copies a folder of a stage to `target`; weights become hard links where the disk allows it."""
    source = stage.path(folder)
    with files.guarded(target.parent, _OPTION):
        draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            _copy_tree(source, draft)
            _replace(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target


def withdraw(target: Path) -> None:
    """Removes what stands at `target`, if anything does; what the store holds of it stays."""
    with files.guarded(target.parent, _OPTION):
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _copy_tree(source: Path, draft: Path) -> None:
    for path in sorted(source.rglob("*")):
        copy = draft / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        if is_weights(path.name):
            _link(path, copy)
        else:
            shutil.copyfile(path, copy)


def _link(path: Path, copy: Path) -> None:
    try:
        os.link(path, copy)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(path, copy)


def _replace(draft: Path, target: Path) -> None:
    if target.is_dir():
        old = target.with_name(f".{target.name}.{os.getpid()}.old.tmp")
        os.rename(target, old)
        os.rename(draft, target)
        shutil.rmtree(old)
    else:
        os.rename(draft, target)
