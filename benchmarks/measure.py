"""Runs jobs in fresh processes, the sides of a comparison in turn, and keeps each result as soon as it is there."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.shapes import ROOT, work_folder

HELD = str(16 << 30)  # a threshold above every block: freed memory is kept and used again, not handed back
ALLOCATORS = {
    "default": {},
    "tuned": {"MALLOC_MMAP_THRESHOLD_": HELD, "MALLOC_TRIM_THRESHOLD_": HELD},
    # Freed blocks go back at once, so that resident memory is what lives: slow, for counting bytes only.
    "exact": {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"},
}
LONGEST = 1800.0  # seconds; a job that takes longer has failed


@dataclass(frozen=True)
class Group:
    """A comparison: its sides, each a job, run in turn so many rounds.

    extra: left out when the time is up; the others are the targets' and always run
    """

    name: str
    sides: dict[str, dict]
    rounds: int
    extra: bool = False


def environment(job: dict) -> dict[str, str]:
    """The environment of a job's process: threads, allocator, nothing fetched, nothing compiled anew each time."""
    left = ("MALLOC_", "PYTHONDONTWRITEBYTECODE")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(left)}
    threads = str(job.get("threads", 1))
    fixed = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "disabled",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH")))),
    }
    return kept | fixed | ALLOCATORS[job.get("allocator", "default")]


def measure(job: dict) -> dict:
    """Do a job in a process of its own; `wall` is from its start to the end of its measured part."""
    with tempfile.TemporaryDirectory() as scratch:
        out, log = Path(scratch) / "result.json", Path(scratch) / "log"
        command = [sys.executable, "-m", "benchmarks.job", json.dumps(job), str(out)]
        started = time.time()
        with log.open("w") as stream:
            child = subprocess.Popen(command, cwd=scratch, env=environment(job), stdout=stream, stderr=stream)
            try:
                code = child.wait(timeout=LONGEST)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                child.kill()
                child.wait()
        if code != 0 or not out.is_file():
            return {"error": _reason(code, log.read_text(errors="replace"))}
        found = json.loads(out.read_text(encoding="utf-8"))
        return found | {"wall": found.pop("ended") - started}


def _reason(code: int | None, log: str) -> str:
    if code is None:
        return f"longer than {LONGEST:.0f} s"
    last = [line for line in log.strip().splitlines() if line.strip()][-1:]
    return f"exit code {code}: {(last or ['no word'])[0][:300]}"


def machine() -> dict:
    """What the numbers were measured on."""
    import torch
    import transformers

    found = {
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    try:
        from trl import __version__ as trl
    except ImportError:
        return found
    return found | {"trl": trl}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    wide = " ".join(
        name for name in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if name in fields.get("flags", "").split()
    )
    return f"{fields.get('model name', platform.machine())} ({wide or 'no wide vectors'})"


def code_print() -> str:
    """A hash of the code that is measured: results of different code are never put together."""
    digest = hashlib.sha256()
    parts = [*(ROOT / "dlma").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml"), *(ROOT / "benchmarks").glob("*.py")]
    shown = {ROOT / "benchmarks" / f"{name}.py" for name in ("table", "targets", "run", "ledger")}
    for path in sorted(set(parts) - shown):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Results:
    """The results of a plan: side by side of each group, in the order of the rounds; every one is kept at once."""

    def __init__(self, path: Path, head: dict) -> None:
        self.path = path
        self.head = head
        self.runs: dict[str, dict[str, list[dict]]] = {}
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if {**kept["head"], "skipped": None} == {**head, "skipped": None}:
                self.runs = kept["runs"]

    def forget_failures(self) -> None:
        """What failed is measured again."""
        for sides in self.runs.values():
            for side, runs in sides.items():
                sides[side] = [run for run in runs if "error" not in run]

    def of(self, group: str, side: str) -> list[dict]:
        return self.runs.get(group, {}).get(side, [])

    def add(self, group: str, side: str, found: dict) -> None:
        """Keep a result, on disk as well."""
        self.runs.setdefault(group, {}).setdefault(side, []).append(found)
        self.write(self.path)

    def write(self, path: Path) -> None:
        """All results as JSON, by one rename."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        text = json.dumps({"head": self.head, "runs": self.runs}, indent=1)
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)


def unfinished(plan: str) -> Path:
    """Where the results of a plan lie until all are there."""
    return work_folder() / f"{plan}.json"


def missing(groups: list[Group], results: Results) -> Iterator[tuple[Group, str]]:
    """What is still to be measured: round by round within a group, so that its sides alternate."""
    for group in groups:
        for done in range(group.rounds):
            for side in group.sides:
                if len(results.of(group.name, side)) <= done:
                    yield group, side


def carry_out(
    groups: list[Group],
    results: Results,
    *,
    minutes: float,
    say: Callable[[str], None],
    do: Callable[[dict], dict] = measure,
) -> list[str]:
    """Measure what is missing; returns the names of the extra groups for which no time was left."""
    started = time.monotonic()
    skipped: list[str] = []
    for group, side in missing(groups, results):
        late = time.monotonic() - started > minutes * 60
        if group.extra and (late or group.name in skipped):
            skipped += [group.name] if group.name not in skipped else []
            continue
        found = do(group.sides[side])
        results.add(group.name, side, found)
        figure = found.get("error") or f"{found['wall']:.1f} s, {found['peak'] / 1e9:.2f} GB"
        say(f"{group.name} | {side} | {len(results.of(group.name, side))} of {group.rounds} | {figure}")
    return skipped
