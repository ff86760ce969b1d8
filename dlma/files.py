"""Atomic writes, JSON and hashes: no half-written file, and one clear line for a full or read-only folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from dlma import redaction
from dlma.errors import UserError

TEXT = {".csv", ".html", ".json", ".jsonl", ".md", ".tex", ".txt", ".yaml"}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}
_BLOCKED = {errno.ENOTDIR, errno.EEXIST}  # a file is in the way
_SETTLED = 2.0  # seconds: a younger file may still change within one tick of its mtime
_FULL_WORDS = ("No space left", "StorageFull", "Disk quota exceeded")


@contextmanager
def guarded(folder: Path, option: str) -> Iterator[None]:
    """Turns "full", "read-only" and "not a folder" errors about `folder` into a UserError naming `option`.

    Errors about files elsewhere pass unchanged; so does every other error.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        advice = _advice(error, folder)
        if advice is None:
            raise
        raise UserError(f"{folder}: {advice.format(option=option)}") from error


def _advice(error: Exception, folder: Path) -> str | None:
    code = error.errno if isinstance(error, OSError) else None
    name = error.filename if isinstance(error, OSError) else None
    place = None if name is None else Path(os.fsdecode(name))
    if place and not _related(place, folder):
        return None
    # Native writers (safetensors, torch) report a full disk in words only.
    if code in _FULL or any(word in str(error) for word in _FULL_WORDS):
        return "no space left; free some, or set {option} to a larger disk, then run the same command again"
    if code == errno.EROFS or (place and code in _CLOSED):
        return f"cannot write here ({os.strerror(code)}); make it writable or set {{option}} to another folder"
    if place and code in _BLOCKED and any(path.is_file() for path in (place, *place.parents)):
        return "a file stands where a folder is needed; move it away or set {option} to another folder"
    return None


def _related(path: Path, folder: Path) -> bool:
    path, folder = path.absolute().resolve(), folder.absolute().resolve()
    return path.is_relative_to(folder) or folder.is_relative_to(path)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Lends a draft path; if the block ends well the draft replaces `path` at once, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield draft
        sync(draft)
        os.replace(draft, path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def lies_in(folder: Path, name: str) -> bool:
    """Whether `folder/name` lies in the folder itself: not above it, and neither it nor its parents are links."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/"):
        return False
    return not any(folder.joinpath(*parts[:count]).is_symlink() for count in range(1, len(parts) + 1))


def is_draft(path: Path) -> bool:
    """True for what a killed `atomic` left behind."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def sync(path: Path) -> None:
    """Flushes a file or folder to the disk, so that a later rename never overtakes its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """The file, at once; a text file without secrets (records keep what was sampled or read, byte for byte)."""
    if path.suffix in TEXT:
        data = redaction.data(data)
    with atomic(path) as draft:
        draft.write_bytes(data)


def write_json(path: Path, value: object) -> None:
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, default=str) + "\n").encode())


def read_json(path: Path) -> dict:
    """The JSON object in a file; a missing, truncated or foreign file reads as an empty one."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_sha256(path: Path, known: dict) -> str:
    """The file's sha256, hashed once: `known` has it by path, with the size and mtime that the file had then."""
    stat = path.stat()
    mark = [stat.st_size, stat.st_mtime_ns]
    entry = known.get(str(path.resolve()))
    if isinstance(entry, dict) and entry.get("mark") == mark and isinstance(entry.get("sha256"), str):
        return entry["sha256"]
    value = sha256_file(path)
    if abs(time.time() - stat.st_mtime) > _SETTLED:
        known[str(path.resolve())] = {"mark": mark, "sha256": value}
    return value


@contextmanager
def memory(path: Path | None) -> Iterator[dict]:
    """Lends what `remembered_sha256` has kept in a JSON file, and keeps what was added; None: a memory of no length."""
    known = read_json(path) if path else {}
    before = dict(known)
    yield known
    if path and known != before:
        with suppress(OSError):  # without it the next process is slower, not wrong
            write_json(path, known)


def seal(path: Path) -> None:
    """Writes the file's sha256 beside it; from then on `sealed` tells a whole file from a damaged one."""
    write_bytes(_seal_of(path), sha256_file(path).encode())


def sealed(path: Path) -> bool:
    """True if the file has a seal and its content agrees with it."""
    try:
        return _seal_of(path).read_text() == sha256_file(path)
    except (OSError, ValueError):
        return False


def _seal_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
