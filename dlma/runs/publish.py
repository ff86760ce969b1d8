"""Copies of stages in a run folder, under readable names; a target appears whole or not at all.

What is handed out is a copy (on shared blocks where the file system has them), so that nothing done to it reaches the
store. What stands where a target goes is removed if it is as a run wrote it (written.py), else kept beside it.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

from dlma import files
from dlma.runs.folder import is_below, record
from dlma.runs.written import enter, is_as_written
from dlma.store.stage import Stage, is_weights

_OPTION = "hydra.run.dir"
_CLONE = 0x40049409  # FICLONE of linux/fs.h


def publish(stage: Stage, file: str, target: Path) -> Path:
    """Copies one record of a stage to `target`; an older target is replaced."""
    data = stage.read(file)
    with files.guarded(target.parent, _OPTION):
        files.write_bytes(target, data)
        enter(target.parent, {target.name: {"sha256": files.sha256_bytes(data), "size": len(data)}})
    return target


def publish_tree(stage: Stage, folder: str, target: Path, *, link: bool = False) -> Path:
    """Copies a folder of a stage to `target`, unless it stands there as it should.

    link: weights are the store's own files under a second name, where the disk allows it
    """
    source = stage.path(folder)
    listed = {name: entry for name, entry in stage.manifest["files"].items() if name.startswith(f"{folder}/")}
    entries = {name.removeprefix(f"{folder}/"): {k: listed[name][k] for k in ("sha256", "size")} for name in listed}
    with files.guarded(target.parent, _OPTION):
        if not _stands(source, target, entries, link):
            _put(source, target, entries, link)
        enter(target.parent, {f"{target.name}/{name}": entry for name, entry in entries.items()})
    return target


def withdraw(target: Path) -> None:
    """Removes what was published at `target`; what was changed since or is no run's is kept, under another name."""
    if not (target.exists() or target.is_symlink()):
        return
    with files.guarded(target.parent, _OPTION):
        _remove(_set_aside(target), _recorded(target))
        enter(target.parent, {}, gone=[target.name])


def withdraw_weights(target: Path) -> None:
    """Removes the weights that were published below `target`, as far as they are as written."""
    weights = {name: entry for name, entry in _recorded(target).items() if is_weights(name)}
    if target.is_dir() and not target.is_symlink():
        dropped = _drop(target, weights)
        enter(target.parent, {}, gone=[f"{target.name}/{name}" for name in dropped])


def _recorded(target: Path) -> dict[str, dict]:
    """The recorded files at or below a target, by their names seen from it; a file's own is `.`."""
    found = {name: entry for name, entry in record(target.parent).items() if is_below(name, target.name)}
    return {name.removeprefix(target.name).removeprefix("/") or ".": entry for name, entry in found.items()}


def _stands(source: Path, target: Path, entries: dict[str, dict], link: bool) -> bool:
    """Whether the target is what would be put there: these files and no others, and the store's own only if linked."""
    there = {path.relative_to(target).as_posix() for path in target.rglob("*") if not path.is_dir()}
    if target.is_symlink() or there != entries.keys():
        return False
    shared = any((target / name).samefile(source / name) for name in entries)
    return shared <= link and all(is_as_written(target, name, entry) for name, entry in entries.items())


def _put(source: Path, target: Path, entries: dict[str, dict], link: bool) -> None:
    with files.atomic_folder(target) as draft:
        for name in entries:
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (_link if link and is_weights(name) else _copy)(source / name, draft / name)
        old = _set_aside(target) if target.exists() or target.is_symlink() else None
    if old is not None:
        _drop(old, entries)  # whatever wrote it: the same stands at the target again
        _remove(old, _recorded(target))
        enter(target.parent, {}, gone=[target.name])


def _link(path: Path, copy: Path) -> None:
    try:
        os.link(path, copy)
    except OSError:  # another disk, or one without hard links
        _copy(path, copy)


def _copy(path: Path, copy: Path) -> None:
    """A file of its own with the same content, on the same blocks until one of them is changed where the disk can."""
    if not _clone(path, copy):
        shutil.copyfile(path, copy)


def _clone(path: Path, copy: Path) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    with open(path, "rb") as source, open(copy, "wb") as target:
        try:
            fcntl.ioctl(target.fileno(), _CLONE, source.fileno())
        except OSError:  # another disk, or one without shared blocks
            return False
    return True


def _set_aside(target: Path) -> Path:
    """Move what stands at `target` to a free name beside it."""
    count = 1
    while (aside := target.with_name(f"{target.name}.aside-{count}")).exists() or aside.is_symlink():
        count += 1
    os.rename(target, aside)
    return aside


def _remove(aside: Path, entries: dict[str, dict]) -> None:
    """Removes what is as a run wrote it, and says what is left: changed since, or no run's."""
    _drop(aside, entries)
    if aside.exists() or aside.is_symlink():
        print(f"{aside}: kept, because it was changed or added to since a run wrote it", file=sys.stderr)


def _drop(place: Path, entries: dict[str, dict]) -> list[str]:
    """Removes the files that are as written, and folders that are empty then; the names of the files."""
    dropped = [name for name, entry in entries.items() if is_as_written(place, name, entry)]
    for name in dropped:
        (place / name).unlink()
    if place.is_dir() and not place.is_symlink():
        for folder in sorted((path for path in (place, *place.rglob("*")) if path.is_dir()), reverse=True):
            _remove_if_empty(folder)
    return dropped


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as reason:
        if reason.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):  # ENOTDIR: a link to a folder
            raise
