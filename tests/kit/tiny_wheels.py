"""Wheels of a few bytes, an index that is a folder, and a cache folder of the test's own."""

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from dlma.wheels import Wheel

NAME, VERSION = "tiny-weights", "1.2.0"


def write_wheel(folder: Path, members: dict[str, bytes], *, name: str = NAME, version: str = VERSION) -> Wheel:
    """A wheel with these members that pip takes for one, written into `folder`."""
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    about = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        for member, text in about.items():
            archive.writestr(f"{stem}.dist-info/{member}", text)
    return pinned(path, name=name, version=version)


def pinned(path: Path, *, name: str = NAME, version: str = VERSION) -> Wheel:
    """The config's node for a file as it is."""
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Wheel(name=name, version=version, sha256=digest, licence="CC0-1.0", bytes=len(content))


def use_index(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip see a folder and nothing else, and dlma keep its files in `cache`."""
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": os.devnull,
        "DLMA_CACHE": str(cache),
    }.items():
        monkeypatch.setenv(name, value)
