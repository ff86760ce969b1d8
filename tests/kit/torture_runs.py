"""Many runs in one process: memory, open files and threads stay flat.

python tests/kit/torture_runs.py COUNT: in the present folder; prints a Part as JSON.
"""

import contextlib
import dataclasses
import gc
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import psutil
from torture_sweep import ROOT, Part

from dlma.app import main

TINY = ["data.train=8", "data.test=4", "recipe.epochs=1", "recipe.max_new_tokens=4", "recipe.batch_pairs=4"]
GROWTH = 0.02  # of the memory after the warm-up, over all later runs; what the allocator rounds to is below


def measured(count: int) -> list[tuple[int, int, int]]:
    """Resident bytes, open files and threads after each run; every second one has a seed of its own."""
    process, found = psutil.Process(), []
    for number in range(count):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            code = main([*TINY, f"seed={number // 2}", "name=tiny"])
        if code:
            raise RuntimeError(said.getvalue()[-2000:])
        for place in ("outputs", "store")[: 2 * (number % 2)]:
            shutil.rmtree(place)
        gc.collect()
        found.append((process.memory_info().rss, process.num_fds(), process.num_threads()))
    return found


def judged(found: list[tuple[int, int, int]]) -> Part:
    """Compare the second quarter with the last; the first is warm-up."""
    quarter = max(1, len(found) // 4)
    early, late = (list(zip(*part, strict=True)) for part in (found[quarter : 2 * quarter], found[-quarter:]))
    memory = [statistics.median(part[0]) for part in (early, late)]
    faults = []
    if memory[1] > memory[0] * (1 + GROWTH):
        faults.append(f"memory grew from {memory[0] / 1e6:.1f} to {memory[1] / 1e6:.1f} MB")
    for index, what in ((1, "open files"), (2, "threads")):
        if max(late[index]) > max(early[index]):
            faults.append(f"{what} grew from {max(early[index])} to {max(late[index])}")
    flat = f"{memory[0] / 1e6:.0f} then {memory[1] / 1e6:.0f} MB, {max(late[1])} files, {max(late[2])} threads"
    return Part(f"{len(found)} runs in one process: {flat}", faults)


def runs(here: Path, count: int) -> Part:
    """So many runs in a process of its own."""
    (here / "runs").mkdir()
    surroundings = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, __file__, str(count)]
    told = subprocess.run(words, cwd=here / "runs", env=surroundings, capture_output=True, text=True, check=False)
    if told.returncode:
        return Part("broken off", [told.stderr[-2000:]])
    return Part(**json.loads(told.stdout))


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(judged(measured(int(sys.argv[1]))))))
