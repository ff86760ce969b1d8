"""The list of what runs wrote into a run folder, `files.json`: size and sha256 of every file as it was written.

A finished cell of a sweep is verified by it, and a later run removes only what is still as written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dlma import files
from dlma.errors import UserError
from dlma.runs.folder import NAMES, RECORD, START, STATUS, fault, is_below, record
from dlma.store.owned import MANIFEST

_OPTION = "hydra.run.dir"


def note(folder: Path, names: Iterable[str]) -> None:
    """Enter files that were written into a run folder, as they are now; entries of files that are gone are dropped."""
    written = {name: folder / name for name in names}
    with files.guarded(folder, _OPTION):
        found = {n: {"sha256": files.sha256_file(p), "size": p.stat().st_size} for n, p in written.items()}
        enter(folder, found, gone=[name for name in record(folder) if not (folder / name).is_file()])


def enter(folder: Path, entries: dict[str, dict], *, gone: Sequence[str] = ()) -> None:
    """Enter files and take out those at or below `gone`."""
    old = {name: entry for name, entry in record(folder).items() if not any(is_below(name, place) for place in gone)}
    files.write_checked(folder / RECORD, old | entries)


def damage(folder: Path, needed: Iterable[str]) -> str | None:
    """The first file of a run folder that is not as it was written, in words; None if all are, with all `needed`."""
    entries = record(folder)
    if missing := [name for name in needed if name not in entries]:
        return f"{missing[0]} is not in {RECORD}"
    found = ((name, fault(folder / name, entry)) for name, entry in entries.items())
    return next((f"{name} {wrong}" for name, wrong in found if wrong), None)


def is_run(folder: Path) -> bool:
    """Whether a run wrote into this folder: by its list of files, its status, or a manifest of before the list."""
    if (
        record(folder)
        or {"name", "number", "overrides", "started", "status"} <= files.read_json(folder / STATUS).keys()
    ):
        return True
    stages = files.read_json(folder / MANIFEST).values()
    return any(isinstance(one, dict) and {"name", "key", "version", "values"} <= one.keys() for one in stages)


def refuse_foreign(folder: Path) -> None:
    """Raises UserError for a folder in which a run would write over files, but which is none of a run or a sweep."""
    if is_run(folder) or _is_sweep(folder):
        return
    found = [name for name in NAMES if (folder / name).exists() or (folder / name).is_symlink()]
    if found:
        where = f"{folder / found[0]}: stands where a run would write, and no run wrote it"
        raise UserError(f"{where}; name another folder: {_OPTION}=... or hydra.sweep.dir=...")


def refuse_other(folder: Path, mode: str | None) -> None:
    """Raises UserError for a folder with results of another kind than those to come, which would go.

    mode: of the run to come; None: a sweep
    """
    told = "a sweep" if mode is not None and _is_sweep(folder) else None
    if is_run(folder):
        held = _mode(folder)
        told = None if held == mode else "a run" if held == "run" else f"results of mode={held}"
    if told:
        raise UserError(f"{folder}: holds {told}, which would be lost: name={folder.name}_2, or any other name=")


def _mode(folder: Path) -> str:
    """The mode that wrote a run folder, by its status; one of before this was noted has it among its overrides."""
    status = files.read_json(folder / STATUS)
    said = [line.removeprefix("mode=") for line in status.get("overrides") or [] if str(line).startswith("mode=")]
    return str(status.get("mode") or (said or ["run"])[-1])


def _is_sweep(folder: Path) -> bool:
    """Whether the cells of a sweep lie here, or one was begun; a cell is known by any of its marks."""
    return (folder / START).is_file() or any(is_run(path) for path in folder.glob("*/"))


def is_as_written(place: Path, name: str, entry: dict) -> bool:
    """Whether a file is the one that a run wrote there; none behind a link is."""
    if place.is_symlink() or not (name == "." or files.lies_in(place, name)):
        return False
    return fault(place / name, entry) is None
