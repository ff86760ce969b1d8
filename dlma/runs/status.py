"""The status of a run or a sweep's cell: which cells need not run, because they finished or failed before.

The ledger is the cells' own status.json files. A cell is settled if its config, the stages' versions, the libraries
and the files that it reads are those of the earlier start: then nothing is loaded. A finished cell is settled while all
files in its folder are as they were written (written.py); a failed one until `sweep.retry_failed=true`, but not one
that failed for its surroundings (a full disk, an input that was gone), which the same command runs again. With
`sweep.on_error=stop` no cell is begun after one has failed at this start. An interrupted cell is never settled.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from omegaconf import DictConfig

from dlma import files
from dlma.config.build import build, resolved
from dlma.redaction import redact
from dlma.runs import written
from dlma.runs.folder import FINISHED, REPORT, START, STATUS
from dlma.store.fingerprint import key_of

APART = ("sweep", "name", "runs")  # what does not decide a cell
MEASURES = ("evaluation", "judges", "metrics")  # what may ask a library of its own
LIBRARIES = ("torch", "transformers")
PLACES = ("path", "folder", "weights", "policy")  # the keys that name a file or a folder to be read


def begin(folder: Path) -> float:
    """Note the start of a sweep, so that its cells, in whatever process, know which others belong to it.

    A start is known by its very time; nothing is later or earlier, as a clock may be set back.
    """
    started = time.time()
    files.write_json(folder / START, {"started": started})
    return started


def start_of(sweep: Path) -> float | None:
    """The start that a sweep's folder notes; None where no sweep is under way."""
    return files.read_json(sweep / START).get("started")


def end(folder: Path) -> None:
    (folder / START).unlink(missing_ok=True)


def digest(cfg: DictConfig) -> str:
    """What decides a cell: config, versions, libraries, those of its metrics too, and size and time of files read."""
    from dlma.store import manifest as manifests
    from dlma.store.machine import arithmetic
    from dlma.store.store import VERSION

    values = {key: value for key, value in resolved(cfg).items() if key not in APART}
    measures = {name: values.get(name) for name in MEASURES}
    return key_of(
        {
            "config": redact(values),
            "versions": VERSION,
            "libraries": {name: manifests.minor(name) for name in LIBRARIES},
            "files": {str(path): _stamp(path) for path in sorted(set(_inputs(cfg, values)))},
            **({"arithmetic": arithmetic()} if arithmetic() else {}),
            **({"needs": needs} if (needs := {name: release_of(name) for name in sorted(_needed(measures))}) else {}),
        }
    )


@cache
def release_of(module: str) -> str:
    """The version of the distribution that brings a module; nothing where it is not installed."""
    from importlib.metadata import packages_distributions, version

    return "+".join(version(name) for name in sorted(set(packages_distributions().get(module, []))))


def _needed(node: object) -> Iterator[str]:
    """The modules that components measure by, as their `_needs_` names them."""
    if isinstance(node, dict):
        yield from node.get("_needs_") or {}
        for inner in node.values():
            yield from _needed(inner)


def inputs(cfg: DictConfig) -> list[Path]:
    """The files that the config names and that are there."""
    return [path for place in _paths(resolved(cfg)) for path in _files(Path(place).expanduser())]


def _inputs(cfg: DictConfig, values: dict) -> Iterator[Path]:
    yield from (path for place in _paths(values) for path in _files(Path(place).expanduser()))
    yield from (path for folder in build(cfg.model).folders for path in _files(folder))


def _paths(node: object, key: str = "") -> Iterator[str]:
    """The values of all keys that name a place."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _paths(value, name)
    elif key in PLACES and isinstance(node, str):
        yield node


def _files(place: Path) -> list[Path]:
    """The file itself, or every file at any depth of a folder, those of hidden folders left out."""
    if place.is_dir():
        return [path for path in place.rglob("*") if path.is_file() and not _hidden(path.parent.relative_to(place))]
    return [place] if place.is_file() else []


def _hidden(folder: Path) -> bool:
    return any(part.startswith(".") for part in folder.parts)


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def read(path: Path) -> dict | None:
    """What a run says of itself; None for a file that no run left, or only a part of one."""
    found = files.read_checked(path)
    texts = all(isinstance(found.get(key), str) for key in ("name", "status"))
    numbers = all(isinstance(found.get(key), int | float) for key in ("number", "started", "code"))
    return found if texts and numbers and isinstance(found.get("result"), dict | None) else None


def of_start(sweep: Path, started: float) -> list[dict]:
    """What the cells of this start of a sweep say of themselves, in the order of the sweep."""
    found = [cell for path in sweep.glob(f"*/{STATUS}") if (cell := read(path)) is not None]
    return sorted((cell for cell in found if cell.get("start") == started), key=lambda cell: cell["number"])


def with_told(cells: Sequence[dict], told: Sequence[dict]) -> list[dict]:
    """The cells as their files have them; as they told it where a file could not be written at their end."""
    known = {cell["number"]: cell for cell in told if cell["status"] != "not started"}
    known |= {cell["number"]: cell for cell in cells if cell["status"] != "running" or cell["number"] not in known}
    return [known[number] for number in sorted(known)]


def settled(folder: Path, own: str, *, retry_failed: bool) -> dict | None:
    """The status that an earlier start left in a cell's folder, if it stands; `own` is the cell's digest now.

    Its counts are empty: nothing is computed and nothing looked up.
    """
    earlier = read(folder / STATUS)
    if earlier is None or earlier.get("digest") != own:
        return None
    done = earlier["status"] == "done" and _is_whole(folder)
    failed = earlier["status"] == "failed" and not (retry_failed or earlier.get("again"))
    if not (done or failed):
        return None
    result = {**earlier["result"], "counts": {"run": {}, "reused": {}}} if done else earlier["result"]
    return {**earlier, "result": result, "settled": True}


def _is_whole(folder: Path) -> bool:
    """Whether a finished cell's files are as they were written; says what is not."""
    damage = written.damage(folder, (*FINISHED, REPORT))
    if damage:
        print(f"{'damaged':<12} {folder.name}: {damage}; made again, from the store as far as it goes")
    return damage is None


def stopped(sweep: Path) -> bool:
    """Whether a cell of this start of the sweep has failed."""
    started = start_of(sweep)
    return started is not None and any(cell["status"] == "failed" for cell in of_start(sweep, started))


def interrupt(sweep: Path, started: float, code: int) -> None:
    """Say of every cell of this start that still runs, in whatever process, that it was interrupted."""
    for path, cell in _running(sweep, started):
        files.write_checked(path, {**cell, "status": "interrupted", "reason": "interrupted", "code": code})


def lose(sweep: Path, started: float, told: Sequence[dict], reason: str) -> None:
    """Of every cell of this start that still runs, though its launcher has ended, say that it failed, to be run again.

    told: cells that said how they ended, even if no file could be written any more
    """
    known = {cell["number"] for cell in told}
    for path, cell in _running(sweep, started):
        if cell["number"] not in known:
            files.write_checked(path, {**cell, "status": "failed", "reason": reason, "code": 1, "again": True})


def _running(sweep: Path, started: float) -> Iterator[tuple[Path, dict]]:
    for path in sweep.glob(f"*/{STATUS}"):
        cell = read(path)
        if cell is not None and cell["status"] == "running" and cell.get("start") == started:
            yield path, cell


def line(cell: dict) -> str:
    """A cell of the ledger in one line."""
    before = cell.get("settled", False)
    if before and cell["status"] == "done":
        return f"{'skipped':<12} {cell['name']}: finished at an earlier start"
    reason = f": {cell['reason']}" if cell["reason"] else ""
    again = " (at an earlier start; sweep.retry_failed=true runs it again)" if before else ""
    return f"{cell['status']:<12} {cell['name']}{reason}{again}"


def total(cells: list[dict], kind: str) -> str:
    """`prompts 1, pairs 2`: the stage counts of all cells added up."""
    totals: Counter[str] = Counter()
    for cell in cells:
        totals.update((cell["result"] or {}).get("counts", {}).get(kind, {}))
    return ", ".join(f"{stage} {count}" for stage, count in totals.items()) or "none"
