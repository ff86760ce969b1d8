"""A stage on disk: its folder, its manifest, and reading it only while its files have the hashes that were written."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from dlma import files
from dlma.store import shards
from dlma.store.owned import MANIFEST, ROWS
from dlma.store.rows import StoredRows

Writer = Callable[[Path], dict | None]
Recover = Callable[["Stage", Callable[[], typing.Any]], typing.Any]


class Stage:
    """A handle on one stage; its key is known before it is computed. Made by `Store.stage`."""

    def __init__(
        self,
        folder: Path,
        values: dict,
        uses: Sequence[Stage],
        recover: Recover,
        machine: dict[str, str] | None = None,
    ):
        self.machine = machine or {}
        self.folder, self.values, self.uses = folder, values, tuple(uses)
        self.name, self.key = folder.parent.name, folder.name
        self.partial = folder.with_name(f"{self.key}.partial")
        self.writer: Writer | None = None
        self.config: dict | None = None
        self._recover = recover

    def __repr__(self) -> str:
        return f"{self.name}/{self.key}"

    def __getstate__(self) -> dict[str, typing.Any]:
        """The stage as a process elsewhere has it: to be read, not to be made."""
        return {**self.__dict__, "uses": (), "writer": None, "config": None}

    @property
    def done(self) -> bool:
        return (self.folder / MANIFEST).is_file()

    @property
    def manifest(self) -> dict:
        """Where the stage came from and what it holds; nothing where the file is not as it was written."""
        return files.read_checked(self.folder / MANIFEST)

    @property
    def notes(self) -> dict:
        """What the writer returned: counts of dropped rows and the like."""
        return self._sound(lambda: self._whole_manifest()["notes"]) if self.done else {}

    @property
    def pruned(self) -> list[str]:
        """Weight files that were deleted to save room; reading them computes the stage again."""
        return self.manifest.get("pruned", [])

    def table(self, file: str = ROWS) -> pa.Table:
        """The rows of a record file, verified now; a damaged stage is computed again first."""
        return shards.table_of(self.read(file))

    def rows(self, record: type) -> StoredRows:
        """The rows as records, verified now and read as they are asked for; a damaged stage is computed again first."""
        return StoredRows(self.path(ROWS), record)

    def read(self, file: str) -> bytes:
        """The content of a record file, verified now."""
        return self._sound(lambda: self._bytes(file))

    def path(self, file: str = ".") -> Path:
        """The path of a file or folder of the stage, verified: records now, weights once per process."""
        self._sound(lambda: self._verify(file))
        return self.folder / file

    def check(self) -> None:
        """Raises Damage if the manifest or a record is not as written; looks once per process and file."""
        pruned = self.pruned
        for name, entry in self._entries().items():
            if not is_weights(name) and name not in pruned:
                verify(self.folder / name, entry, once=True)

    def _sound(self, read: Callable[[], typing.Any]) -> typing.Any:
        if not self.done and self.writer is None:
            raise LookupError(f"{self} has not been made")
        try:
            return read()
        except Damage:
            return self._recover(self, read)

    def _whole_manifest(self) -> dict:
        manifest = self.manifest
        parts = [manifest.get(part) for part in ("files", "notes")]
        if manifest.get("key") != self.key or not all(isinstance(part, dict) for part in parts):
            raise Damage(f"{MANIFEST} is damaged")
        return manifest

    def _entries(self) -> dict[str, dict]:
        return self._whole_manifest()["files"]

    def _verify(self, file: str) -> None:
        pruned = self.pruned
        found = {name: entry for name, entry in self._entries().items() if _inside(name, file)}
        if not found:
            raise LookupError(f"{self} has no {file}")
        for name, entry in found.items():
            if name in pruned:
                raise Pruned(f"{name} was pruned")
            verify(self.folder / name, entry, once=is_weights(name))

    def _bytes(self, file: str) -> bytes:
        """A file's content, hashed as it was read."""
        entries = self._entries()
        if file not in entries:
            raise LookupError(f"{self} has no {file}")
        try:
            data = (self.folder / file).read_bytes()
        except FileNotFoundError as error:
            raise Damage(f"{file} is missing") from error
        if files.sha256_bytes(data) != entries[file]["sha256"]:
            raise Damage(f"{file} has another sha256 than when it was written")
        return data


class Damage(Exception):
    """A stage's content is not what its manifest says; handled here, never shown as such."""


class Pruned(Damage):
    """What is missing was deleted on purpose, to save room."""


def is_weights(name: str) -> bool:
    """Weights are verified once per process; every other file is a record, verified at each read."""
    return name.endswith(".safetensors")


def _inside(name: str, place: str) -> bool:
    return place in (".", name) or name.startswith(place.rstrip("/") + "/")


_verified: set[tuple] = set()  # files whose sha256 was right in this process


def verify(path: Path, entry: dict, *, once: bool) -> None:
    try:
        stat = path.stat()
    except OSError as error:
        raise Damage(f"{path.name} is missing") from error
    mark = (path, stat.st_size, stat.st_mtime_ns, stat.st_ino, entry["sha256"])
    if once and mark in _verified:
        return
    if stat.st_size != entry["size"]:
        raise Damage(f"{path.name} has {stat.st_size} bytes, not {entry['size']}")
    if files.sha256_file(path) != entry["sha256"]:
        raise Damage(f"{path.name} has another sha256 than when it was written")
    _verified.add(mark)
