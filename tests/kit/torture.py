"""What a sweep survives: kills, four processes at once, damage to its store; each must end with the undisturbed bytes.

python tests/kit/torture.py [--short] [--kills N] [--processes N] [--damages N]
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["data.train=24", "data.test=16", "recipe.epochs=1", "recipe.max_new_tokens=12"]
SWEEP = [sys.executable, str(ROOT / "run.py"), "-m", "method=dlma,rlcd", "name=torture", *SMALL]
RESULTS = ("prompts.parquet", "pairs.parquet", "scored.parquet", "answers.parquet", "metrics.csv", "train.csv")


def flipped(data: bytes, at: int) -> bytes:
    """The bytes with the lowest bit of one of them flipped; nothing where there are none."""
    return data[:at] + bytes(byte ^ 1 for byte in data[at : at + 1]) + data[at + 1 :]


HARM: dict[str, Callable[[bytes], bytes | None]] = {
    "removed": lambda data: None,
    "truncated": lambda data: data[: len(data) // 2],
    "one bit flipped": lambda data: flipped(data, len(data) // 2),
    "emptied": lambda data: b"",
    "garbage appended": lambda data: data + b"\x00garbage",
}


def start(folder: Path) -> subprocess.Popen:
    """The sweep in a folder, in a process group of its own; what it says goes to said.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    surroundings = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    with (folder / "said.txt").open("ab") as said:
        return subprocess.Popen(SWEEP, cwd=folder, env=surroundings, stdout=said, stderr=said, start_new_session=True)


def results(folder: Path) -> dict[str, bytes]:
    """The bytes of every result of every cell, by path in the run folder."""
    out = folder / "outputs" / "torture"
    found = {path.relative_to(out).as_posix(): path for path in out.glob("*/**/*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if path.name in RESULTS or "/policy/" in name}


def computed(folder: Path) -> int:
    """How many stages the cells of a finished sweep computed, not reused."""
    states = [json.loads(path.read_text()) for path in folder.glob("outputs/torture/*/status.json")]
    return sum(sum(state["result"]["counts"]["run"].values()) for state in states)


def differences(folder: Path, code: int, calm: dict[str, bytes], what: str) -> list[str]:
    """What a finished sweep has otherwise than the undisturbed one, one line each."""
    if code != 0:
        return [f"{what}: exit code {code}, see said.txt"]
    now = results(folder)
    return [f"{what}: {name} differs" for name in sorted(calm.keys() | now) if calm.get(name) != now.get(name)]


def kills(here: Path, calm: dict[str, bytes], wall: float, count: int) -> tuple[int, list[str]]:
    """SIGKILL at moments spread evenly over the undisturbed wall time; a finished store is compared and begun anew."""
    folder, faults, struck = here / "kills", [], 0
    for turn in range(count):
        process = start(folder)
        try:
            code = process.wait(timeout=wall * (turn + 0.5) / count)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            struck += 1
            continue
        faults += differences(folder, code, calm, f"kill {turn}")
        shutil.rmtree(folder)
    return struck, faults + differences(folder, start(folder).wait(), calm, "after the last kill")


def crowd(here: Path, calm: dict[str, bytes], count: int) -> tuple[int, list[str]]:
    """Processes at once on one store, each with outputs of its own."""
    folders = [here / f"crowd{index}" for index in range(count)]
    for folder in folders:
        folder.mkdir()
        (folder / "store").symlink_to(here / "crowd_store")
    (here / "crowd_store").mkdir()
    processes = [start(folder) for folder in folders]
    faults = [
        line
        for folder, process in zip(folders, processes, strict=True)
        for line in differences(folder, process.wait(), calm, folder.name)
    ]
    if not faults and (once := computed(here / "calm")) != (all_of_them := sum(computed(one) for one in folders)):
        faults.append(f"{count} processes computed {all_of_them} stages, the undisturbed one {once}")
    return count, faults


def damage(here: Path, calm: dict[str, bytes], count: int) -> tuple[int, list[str]]:
    """Harms to files of the store, spread evenly over both, one at a time; the run folders go, so the store is read."""
    folder, faults, done = here / "calm", [], 0
    names = sorted(path.relative_to(folder) for path in folder.glob("store/*/*/**/*") if path.is_file())
    every = [(name, *item) for name in names for item in HARM.items()]
    for name, harm, change in every[:: max(1, len(every) // count)][:count]:
        path = folder / name
        if not path.is_file():
            continue
        after = change(path.read_bytes())
        path.unlink() if after is None else path.write_bytes(after)
        shutil.rmtree(folder / "outputs")
        faults += differences(folder, start(folder).wait(), calm, f"{name} {harm}")
        done += 1
    return done, faults


def main(argv: list[str]) -> int:
    """Run each part; prints a line for each, then what failed. Gives 1 when anything did."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true", help="a few of each")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--damages", type=int, default=40)
    asked = parser.parse_args(argv)
    here, faults = Path(tempfile.mkdtemp(prefix="torture")), []
    began = time.monotonic()
    code = start(here / "calm").wait()
    wall, calm = time.monotonic() - began, results(here / "calm")
    if code != 0 or not calm:
        print(f"the undisturbed run failed (exit code {code}, {len(calm)} results): see {here}/calm/said.txt")
        return 1
    print(f"undisturbed: {len(calm)} results in {wall:.1f} s", flush=True)
    parts = {
        "kills": lambda count: kills(here, calm, wall, count),
        "processes": lambda count: crowd(here, calm, count),
        "damages": lambda count: damage(here, calm, count),
    }
    short = {"kills": 2, "processes": 2, "damages": 1}
    for name, part in parts.items():
        done, found = part(short[name] if asked.short else getattr(asked, name))
        print(f"{name}: {done} done, {len(found)} faults", flush=True)
        faults += found
    print("\n".join(faults) or "all byte-equal to the undisturbed run")
    if not faults:
        shutil.rmtree(here)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
