"""Atomic writes, JSON and hashes: no half-written file, and one clear line for a full or read-only folder."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from dlma import redaction
from dlma.errors import Unavailable, UserError

CHECKSUM = "sha256"  # the key of a JSON object under which it holds its own
TEXT = {".csv", ".html", ".json", ".jsonl", ".md", ".tex", ".txt", ".yaml"}
_DRAFT = re.compile(r"\..+\.\d+-\d+\.tmp")
_HASH = re.compile(r"[0-9a-f]{64}")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}
_BLOCKED = {errno.ENOTDIR, errno.EEXIST}  # a file is in the way
UNWRITABLE = _FULL | _CLOSED | _BLOCKED
VISIBLE = 90.0  # seconds until all machines see what one has written: network file systems remember for 60
_SETTLED = 2.0  # seconds: a younger file may still change within one tick of its mtime
_FULL_WORDS = {  # of native writers
    "No space left": errno.ENOSPC,
    "StorageFull": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
}


@contextmanager
def guarded(folder: Path, option: str) -> Iterator[None]:
    """Turns "full", "read-only" and "not a folder" errors about `folder` into an Unavailable naming `option`.

    A full disk is named by the folder that is full, which may be the system's temporary one. Errors about files
    elsewhere pass unchanged; so does every other error.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        full = _full(error)
        place = Path(os.fsdecode(full.filename)) if full and full.filename else None
        if full and (place is None or _related(place, folder)):
            raise Unavailable(_no_room(full, folder, folder if place else _fullest(folder), option)) from error
        advice = None if full else _advice(error, folder)
        if advice is None:
            raise
        raise Unavailable(f"{folder}: {advice.format(option=option)}") from error


def _full(error: BaseException | None) -> OSError | None:
    """What tells of a full disk: an error, or what was raised on its way; native writers say it in words only."""
    words = str(error) if isinstance(error, Exception) else ""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error
        error = error.__cause__ or error.__context__
    told = next((code for word, code in _FULL_WORDS.items() if word in words), None)
    return None if told is None else OSError(told, os.strerror(told))


def _fullest(folder: Path) -> Path:
    """Of a folder and the system's temporary one, which libraries use, the one with less room."""
    known = [place for place in (folder, Path(os.environ.get("TMPDIR") or "/tmp")) if place.is_dir()]
    return min(known, key=lambda place: shutil.disk_usage(place).free, default=folder)


def _no_room(full: OSError, folder: Path, place: Path, option: str) -> str:
    says = option if place == folder else "the environment variable TMPDIR"
    where = f"{place.absolute()}: {full.strerror}"
    return f"{where}; make room, or set {says} to a larger disk, then run the same command again"


def _advice(error: Exception, folder: Path) -> str | None:
    code = error.errno if isinstance(error, OSError) else None
    name = error.filename if isinstance(error, OSError) else None
    place = None if name is None else Path(os.fsdecode(name))
    if place and not _related(place, folder):
        return None
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
    draft = draft_of(path)
    try:
        with _placed(path):
            yield draft
            sync(draft)
            os.replace(draft, path)
            sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """The same for a folder, which is new: lends a draft, whatever stands at `path` gives way to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    try:
        shutil.rmtree(draft, ignore_errors=True)  # a killed process had the same numbers
        with _placed(path):
            draft.mkdir()
            yield draft
            _as_open_as_the_folder(draft)
            shutil.rmtree(path, ignore_errors=True)
            os.rename(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _as_open_as_the_folder(folder: Path) -> None:
    """Others read what a library made for its owner alone (safetensors its weights), where they read the folder."""
    others = folder.stat().st_mode & 0o044
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mode & others != others:
            path.chmod(path.stat().st_mode | others)


@contextmanager
def _placed(path: Path) -> Iterator[None]:
    """A full disk is told with the place: an error of writing has none of its own."""
    try:
        yield
    except Exception as error:
        full = _full(error)
        if full is None or full.filename is not None:
            raise
        raise OSError(full.errno, full.strerror, str(path)) from error


def remove_drafts(folder: Path) -> None:
    """Removes what a kill left of drafts, at any depth of a folder that nobody else writes to."""
    for path in [path for path in folder.rglob("*") if is_draft(path)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def lies_in(folder: Path, name: str) -> bool:
    """Whether `folder/name` lies in the folder itself: not above it, and neither it nor its parents are links."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/"):
        return False
    return not any(folder.joinpath(*parts[:count]).is_symlink() for count in range(1, len(parts) + 1))


def awaited(paths: Iterable[Path], seconds: float) -> bool:
    """Whether all are there: on a folder that machines share, what another has just written is seen a little later."""
    until = time.monotonic() + seconds
    while missing := [path for path in paths if not path.exists()]:
        if time.monotonic() > until:
            return False
        for folder in {path.parent for path in missing}:
            with suppress(OSError), os.scandir(folder) as listing:  # asks the server anew
                next(listing, None)
        time.sleep(0.1)
    return True


def draft_of(path: Path) -> Path:
    """Where this thread writes what is to be put at `path` by one rename."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")


def is_draft(path: Path) -> bool:
    """True for what a kill left of a draft."""
    return _DRAFT.fullmatch(path.name) is not None


def sync(path: Path) -> None:
    """Flushes a file or folder to the disk, so that a later rename never overtakes its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes, *, as_is: bool = False) -> None:
    """The file, at once; a text file without secrets (records keep what was sampled or read, byte for byte).

    as_is: the file is rows of data, which are not to be changed whatever they hold
    """
    if path.suffix in TEXT and not as_is:
        data = redaction.data(data)
    with atomic(path) as draft:
        try:
            draft.write_bytes(data)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise OSError(error.errno, f"{error.strerror} ({len(data):,} bytes wanted)", str(path)) from error


def write_json(path: Path, value: object) -> None:
    write_bytes(path, _json(value))


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, default=str) + "\n").encode()


def read_json(path: Path) -> dict:
    """The JSON object in a file; a missing, truncated or foreign file reads as an empty one."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def write_checked(path: Path, value: dict) -> None:
    """A JSON object that holds, under CHECKSUM, the hash of the rest of itself as it is written."""
    rest = json.loads(redaction.data(_json(value)))
    write_bytes(path, _json({**rest, CHECKSUM: sha256_bytes(_json(rest))}))


def read_checked(path: Path) -> dict:
    """What `write_checked` wrote, without the hash; what differs from that by any byte reads as an empty object.

    A file of an earlier version holds no hash of itself, and is taken as it stands.
    """
    try:
        data = path.read_bytes()
        value = json.loads(data)
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    # A hash under any other name tells that the name is what was damaged.
    if CHECKSUM not in value and not any(isinstance(one, str) and _HASH.fullmatch(one) for one in value.values()):
        return value
    return {name: one for name, one in value.items() if name != CHECKSUM} if _is_as_written(data) else {}


@functools.lru_cache(maxsize=64)
def _is_as_written(data: bytes) -> bool:
    """Whether an object is, to the byte, what `write_checked` makes of it; worked out once for the same bytes."""
    rest = {name: one for name, one in json.loads(data).items() if name != CHECKSUM}
    return data == _json({**rest, CHECKSUM: sha256_bytes(_json(rest))})


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
    known = read_checked(path) if path else {}
    before = dict(known)
    yield known
    if path and known != before:
        with suppress(OSError):  # without it the next process is slower, not wrong
            write_checked(path, known)


def seal(path: Path) -> None:
    """Writes the sha256 of a file or folder beside it; from then on `sealed` tells a whole one from a damaged one."""
    write_bytes(_seal_of(path), _sha256(path).encode())


def sealed(path: Path) -> bool:
    """True if the file or folder has a seal and its content agrees with it."""
    try:
        return _seal_of(path).read_text() == _sha256(path)
    except (OSError, ValueError):
        return False


def unseal(path: Path) -> None:
    """Remove a file or folder and its seal, first the seal."""
    _seal_of(path).unlink(missing_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    """Of a file, or of the names and contents of all files in a folder."""
    if not path.is_dir():
        return sha256_file(path)
    inside = sorted(one for one in path.rglob("*") if one.is_file())
    return sha256_bytes(_json({one.relative_to(path).as_posix(): sha256_file(one) for one in inside}))


def _seal_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
