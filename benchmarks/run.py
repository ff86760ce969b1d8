"""Ours and the peers, in turn: `python -m benchmarks.run [bench|full|smoke]`, that is `make bench`, `make bench-full`.

`inference` measures only the targets of scoring and sampling, `real` the real model, `real_training`,
`real_inference` and `real_pipeline` a part of that, `rest` only what no target needs: none of them touches the tables
of the README.

Each measurement is a process of its own and is kept when it is done; a run that was stopped goes on where it was,
unless the code or the machine has changed since. At the end the results are written to benchmarks/results/ and the
tables to benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks import table
from benchmarks.measure import Results, carry_out, code_print, machine, unfinished
from benchmarks.plan import plan, real_dtype
from benchmarks.shapes import model_folder, real_folder, shape_of
from benchmarks.text import hh_file

HALF = 4.0  # nats between the log-probs of two answers in bfloat16: R of real pairs is off by 0.6 rms, 1.3 at most
HALF_LOSS = 1e-2
ENDLESS = float("inf")
PLANS = ("full", "inference", "real", "real_inference", "real_pipeline", "real_training", "rest", "smoke")
MINUTES = {"bench": 28.0} | dict.fromkeys(PLANS, ENDLESS)
README = Path(__file__).parent / "README.md"


def main(argv: list[str] | None = None) -> int:
    """Measure, keep, show; returns 1 when a job failed, else 0: a missed target is shown, not an error."""
    options = _options(argv)
    if options.model is not None:
        os.environ["DLMA_BENCH_MODEL"] = str(options.model)  # each measurement is a process of its own
    if options.plan != "smoke" and (real_folder() is None or hh_file() is None):
        _say("left out, the real model: it takes --model FOLDER or DLMA_BENCH_MODEL, and HH's pairs (DLMA_HH_FILE)")
    groups = plan(options.plan)
    results = Results(
        unfinished(options.plan),
        {"plan": options.plan, "machine": machine(), "code": code_print(), "real": real_dtype()},
    )
    results.forget_failures()
    _prepare(groups)
    minutes = options.minutes or MINUTES[options.plan]
    skipped = carry_out(groups, results, minutes=minutes, say=_say)
    results.head["skipped"] = skipped
    if results.head["code"] != code_print():
        _say("the code has changed while it was measured: measure again before trusting these numbers")
    if options.plan != "smoke":
        _publish(results, options.plan)
    results.path.unlink(missing_ok=True)
    print(table.render(results, details=True))
    failed = table.failures(results)
    for line in disagreements(results):
        print(f"sides disagree: {line}")
        failed.append(line)
    return 1 if failed else 0


def disagreements(results: Results, allowed: float = 2e-2) -> list[str]:
    """Groups whose sides give other log-probs or losses than ours: their speed would compare different work."""
    found = _other_losses(results)
    for group, sides in results.runs.items():
        values = {side: runs[0]["values"] for side, runs in sides.items() if runs and "values" in runs[0]}
        ours = values.pop("ours", None)
        for side, theirs in values.items() if ours else ():
            rows = zip(ours, theirs, strict=False)
            worst = max(abs(a - b) for one, other in rows for a, b in zip(one, other, strict=True))
            if worst > (allowed if _exact(sides) else HALF):
                found.append(f"{group}: {side} differs by {worst:.1e} nats")
    return found


def _other_losses(results: Results, allowed: float = 1e-5) -> list[str]:
    """Of training, by the mean loss of the steps."""
    found = []
    for group, sides in results.runs.items():
        losses = {side: runs[0]["loss"] for side, runs in sides.items() if runs and "loss" in runs[0]}
        ours = losses.get("ours")
        for side, theirs in losses.items() if ours is not None else ():
            if abs(theirs - ours) > (allowed if _exact(sides) else HALF_LOSS) * abs(ours):
                found.append(f"{group}: the mean loss of {side} is {theirs:.7f}, ours {ours:.7f}")
    return found


def _exact(sides: dict) -> bool:
    """Whether no side made its products in bfloat16."""
    return not any(run.get("half") for runs in sides.values() for run in runs)


def _prepare(groups: list) -> None:
    """Make every model's files now: making them is no part of a measurement."""
    wanted = {
        (job["shape"], job.get("vocabulary")) for group in groups for job in group.sides.values() if "shape" in job
    }
    for name, vocabulary in sorted(wanted, key=str):
        model_folder(shape_of(name, vocabulary))


def _publish(results: Results, plan_name: str) -> None:
    results.write(table.RESULTS / f"{plan_name}.json")
    if plan_name not in ("bench", "full"):
        return
    text = table.between(README.read_text(encoding="utf-8"), table.render(results, details=True))
    README.write_text(text, encoding="utf-8")


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", nargs="?", default="bench", choices=sorted(MINUTES))
    parser.add_argument("--model", type=Path, help="the folder of the real model, instead of DLMA_BENCH_MODEL")
    parser.add_argument("--minutes", type=float, help="after so long, what no target needs is left out")
    return parser.parse_args(argv)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
