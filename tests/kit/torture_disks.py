"""Disks that are full or read-only: one line that names the place, and the same command goes on.

As root a small disk in memory is mounted, and really full; else the size of files is limited, and folders are closed.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torture_sweep import Calm, Part, code_of, differences, said_of

from dlma.files import is_draft

SIZE = "200m"


def may_mount() -> bool:
    """Whether this process may mount a disk in memory."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0


@contextmanager
def small_disk(folder: Path, size: str = SIZE) -> Iterator[Path]:
    """In the block a folder is a disk of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def closed(folder: Path, mounts: bool) -> Iterator[None]:
    """In the block nothing can be written below a folder."""
    if mounts:
        subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return
    places = [path for path in (folder, *folder.rglob("*")) if path.is_dir()]
    for path in places:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in places:
            path.chmod(0o755)


def refused(code: int, said: str, place: Path, words: str, what: str) -> list[str]:
    """What is wrong with how a start that could not write ended: the lines of its errors name the place."""
    lines = [line for line in said.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    faults = [] if code == 2 else [f"{what}: exit code {code}"]
    if not lines or not all(str(place) in line and words in line for line in lines):
        faults.append(f"{what}: {lines}")
    if "Traceback" in said:
        faults.append(f"{what}: a traceback")
    return faults


def full(here: Path, calm: Calm, count: int) -> Part:
    """The store's disk full in stages, that of the run folders while they are written, and the temporary one."""
    if not may_mount():
        return _limited(here, calm, count)
    folder, faults = here / "full", []
    store, outputs = folder / "store", folder / "outputs"
    with small_disk(store), small_disk(outputs), small_disk(folder / "temporary", "64k") as temporary:
        for number, name in enumerate(calm.some(count)):
            room = [0, 3000][number % 2]
            deed = {"stage": name, "at": "begin", "do": "fill", "with": [str(store), room]}
            faults += refused(*said_of(folder, **deed), store, "No space left on device", f"full in {name}")
            faults += [f"full in {name}: {path} was left" for path in store.rglob("*") if is_draft(path)]
            (store / "ballast").unlink(missing_ok=True)
        deed = {"outputs": calm.outputs // 3, "do": "fill", "with": [str(outputs), 0]}
        faults += refused(
            *said_of(folder, **deed), outputs, "No space left on device", "full while run folders are written"
        )
        (outputs / "ballast").unlink(missing_ok=True)
        (temporary / "ballast").write_bytes(bytes(64 << 10))
        faults += differences(
            folder, code_of(folder, temporary), calm.results, "after the last full disk, with a full temporary one"
        )
    return Part(f"{count} stages on a full disk, run folders on another, a full temporary folder", faults)


def _limited(here: Path, calm: Calm, count: int) -> Part:
    folder, faults = here / "full", []
    for name in calm.some(count):
        code, said = said_of(folder, stage=name, at="begin", do="limit", **{"with": [0]})
        if code == 0 or "Traceback" in said:
            faults.append(f"limited in {name}: exit code {code}")
    faults += differences(folder, said_of(folder)[0], calm.results, "after the last limit")
    return Part(f"{count} stages with a limit of the size of files (may not mount)", faults)


def read_only(here: Path, calm: Calm) -> Part:
    """A finished store that is closed is used; one that lacks a stage, and closed run folders, are one line."""
    mounts = may_mount()
    if not mounts and os.geteuid() == 0:
        return Part("nothing: root that may not mount can write everywhere", [])
    folder, faults = here / "read_only", []
    shutil.copytree(calm.folder, folder, symlinks=True)
    shutil.rmtree(folder / "outputs")
    with closed(folder / "store", mounts):
        faults += differences(folder, said_of(folder)[0], calm.results, "a store that is read-only and whole")
    shutil.rmtree(folder / "outputs")
    for name in [name for name in calm.stages if name.startswith("scored/")]:
        shutil.rmtree(folder / "store" / name)
    with closed(folder / "store", mounts):
        faults += refused(
            *said_of(folder), folder / "store", "cannot write here", "a store that is read-only and not whole"
        )
    with closed(folder / "outputs", mounts):
        faults += refused(*said_of(folder), Path("outputs"), "Read-only" if mounts else "denied", "closed run folders")
    faults += differences(folder, said_of(folder)[0], calm.results, "after read-only")
    return Part("a whole store, one that lacks stages, run folders", faults)
