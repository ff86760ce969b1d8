"""How a run's time grows with processes: `python -m benchmarks.processes`, one and two in turn, one thread each.

A part of the lab's default run, with a fresh store every time. Seconds are those between the start and the end that the
manifests of the stages say, and of the whole command; medians of the rounds stand in docs/scale.md.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from benchmarks.measure import machine
from benchmarks.shapes import ROOT
from benchmarks.table import RESULTS, between, table

START, END = "<!-- processes:start -->", "<!-- processes:end -->"
ROUNDS, COUNTS = 3, (1, 2)
SIZES = ("data.train=1000", "data.validation=16", "data.test=300", "trainer.threads=1")
STAGES = {"pairs": ["pairs"], "scores": ["scored"], "training": ["policy"], "answers": ["base", "prompted", "aligned"]}
WHOLE = "the whole command"


def measured(count: int) -> dict[str, float]:
    """Seconds of each kind of stage, and of the command, of a run in so many processes."""
    several = ("trainer=ddp", f"trainer.devices={count}", "trainer.accelerator=cpu") if count > 1 else ()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "run.py"), *SIZES, *several, "hydra.run.dir=run", "store.root=store"]
        began = time.monotonic()
        subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
        whole = time.monotonic() - began
        manifest = json.loads((Path(folder) / "run" / "manifest.json").read_text(encoding="utf-8"))
    return {kind: sum(_seconds(manifest[name]) for name in names) for kind, names in STAGES.items()} | {WHOLE: whole}


def _seconds(stage: dict) -> float:
    started, ended = (datetime.fromisoformat(stage[name]) for name in ("started", "ended"))
    return (ended - started).total_seconds()


def shown(found: dict[str, Sequence[dict[str, float]]]) -> str:
    """The table: medians over rounds by kind, and how many times as fast two are; found: rounds by processes."""
    rows = []
    for kind in (*STAGES, WHOLE):
        one, two = (statistics.median(run[kind] for run in found[str(count)]) for count in COUNTS)
        rows.append([kind, f"{one:.0f}", f"{two:.0f}", f"{one / two:.1f}"])
    return table(["", "one process, s", "two processes, s", "times as fast"], rows)


def main() -> int:
    """Measure in turn, keep, and write the table."""
    found: dict[str, list[dict[str, float]]] = {str(count): [] for count in COUNTS}
    for _ in range(ROUNDS):
        for count in COUNTS:
            found[str(count)].append(measured(count))
    kept = {"machine": machine(), "sizes": SIZES, "rounds": found}
    (RESULTS / "processes.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    page = ROOT / "docs" / "scale.md"
    page.write_text(between(page.read_text(encoding="utf-8"), shown(found), START, END), encoding="utf-8")
    print(shown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
