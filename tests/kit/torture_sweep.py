"""The sweep that is tortured: how it is started, what it leaves, and what of that differs from the undisturbed one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("torture_child.py")
SMALL = ["data.train=24", "data.test=16", "recipe.epochs=1", "recipe.max_new_tokens=12"]
SMALL += ["recipe.batch_pairs=8", "trainer.shard_rows=8", "trainer.checkpoint_steps=1"]  # several shards and points
ONE = ["-m", "method=dlma", "name=torture", *SMALL]
SWEEP = ["-m", "method=dlma,rlcd", "name=torture", *SMALL]
OTHER = ("status.json", "files.json", "manifest.json", "report.html")  # hold times, or paths


@dataclass(frozen=True)
class Calm:
    """The undisturbed sweep: its folder and results, its stages with their seconds in order, its files put out."""

    folder: Path
    results: dict[str, bytes]
    stages: dict[str, float]
    outputs: int

    def some(self, count: int) -> list[str]:
        """So many stages in their order: first one of each kind, then second ones."""
        kinds = [name.split("/")[0] for name in self.stages]
        turns = {name: kinds[:number].count(kinds[number]) for number, name in enumerate(self.stages)}
        chosen = sorted(self.stages, key=lambda name: turns[name])[:count]
        return [name for name in self.stages if name in chosen]


@dataclass(frozen=True)
class Part:
    """What a part of the torture did, in words, and what it found, one line each."""

    did: str
    faults: list[str]


def started(folder: Path, temporary: Path | None = None, **asked: object) -> subprocess.Popen:
    """The sweep in a folder; what it says goes to said.txt. asked: what is done to it (torture_child.py)."""
    folder.mkdir(parents=True, exist_ok=True)
    surroundings = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "TORTURE": json.dumps(asked)}
    surroundings |= {"TMPDIR": str(temporary)} if temporary else {}
    words = [sys.executable, str(CHILD), *SWEEP]
    with (folder / "said.txt").open("ab") as said:
        return subprocess.Popen(words, cwd=folder, env=surroundings, stdout=said, stderr=said)


def code_of(folder: Path, temporary: Path | None = None, **asked: object) -> int:
    """The exit code of the sweep in a folder."""
    return started(folder, temporary, **asked).wait()


def said_of(folder: Path, **asked: object) -> tuple[int, str]:
    """The exit code, and what was said at this start."""
    path = folder / "said.txt"
    before = path.stat().st_size if path.is_file() else 0
    code = code_of(folder, **asked)
    return code, path.read_bytes()[before:].decode(errors="replace")


def calm_in(folder: Path) -> Calm:
    """Run it undisturbed. Raises RuntimeError where that fails."""
    log = folder.with_suffix(".log")
    code = code_of(folder, log=str(log))
    found = results(folder)
    if code != 0 or not found:
        raise RuntimeError(f"the undisturbed run failed (exit code {code}, {len(found)} results): {folder}/said.txt")
    lines = entries(log)
    seconds = {name: ended - began for kind, name, *times in lines if kind == "stage" for began, ended in [times]}
    return Calm(folder, found, seconds, sum(kind == "output" for kind, *_ in lines))


def entries(log: Path) -> list[list]:
    """The lines of a child's log."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def results(folder: Path) -> dict[str, bytes]:
    """The bytes of every result of every cell, by path in the sweep's folder."""
    out = folder / "outputs" / "torture"
    found = {path.relative_to(out).as_posix(): path for path in out.glob("*/**/*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if path.name not in OTHER}


def computed(folder: Path) -> int:
    """How many stages the cells of a finished sweep computed, not reused."""
    states = [json.loads(path.read_text()) for path in folder.glob("outputs/torture/*/status.json")]
    return sum(sum(state["result"]["counts"]["run"].values()) for state in states)


def differences(folder: Path, code: int, calm: dict[str, bytes], what: str) -> list[str]:
    """What a finished sweep has otherwise than the undisturbed one, one line each."""
    if code != 0:
        return [f"{what}: exit code {code}, see {folder}/said.txt"]
    now = results(folder)
    return [f"{what}: {name} differs" for name in sorted(calm.keys() | now) if calm.get(name) != now.get(name)]


def flipped(data: bytes, at: int) -> bytes:
    """The bytes with the lowest bit of one of them flipped; nothing where there are none."""
    return data[:at] + bytes(byte ^ 1 for byte in data[at : at + 1]) + data[at + 1 :]


HARM: dict[str, Callable[[bytes], bytes | None]] = {
    "removed": lambda data: None,
    "truncated": lambda data: data[: len(data) // 2],
    "a bit at the start flipped": lambda data: flipped(data, 0),
    "a bit in the middle flipped": lambda data: flipped(data, len(data) // 2),
    "a bit at the end flipped": lambda data: flipped(data, len(data) - 1),
    "emptied": lambda data: b"",
    "garbage appended": lambda data: data + b"\x00garbage",
}


def harm(path: Path, how: str) -> None:
    """Do a harm of HARM to a file, which keeps its times, as on a failing disk."""
    stat, after = path.stat(), HARM[how](path.read_bytes())
    if after is None:
        path.unlink()
        return
    path.write_bytes(after)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
