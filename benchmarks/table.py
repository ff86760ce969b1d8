"""The results as Markdown: `python -m benchmarks.table [--write FILE] [--details] [--results FILE]`.

The text goes between `<!-- bench:start -->` and `<!-- bench:end -->` of the file; without --write it is printed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks import sweeps, targets
from benchmarks.measure import Results
from benchmarks.shapes import ROOT

START, END = "<!-- bench:start -->", "<!-- bench:end -->"
RESULTS = ROOT / "benchmarks" / "results"


def read(path: Path) -> Results:
    """Results as they were written; raises FileNotFoundError when there are none."""
    return Results(path, json.loads(path.read_text(encoding="utf-8"))["head"])


def hardware(head: dict) -> str:
    machine = head["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "transformers", "trl") if name in machine)
    real = f"; the real model by two threads, in {head['real']}" if "real" in head else ""
    return f"{machine['cpu']}, {machine['cores']} cores, one thread a process; {versions}; float32{real}."


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def target_table(results: Results) -> str:
    """Each target with what was found: met, missed, or not measured."""
    words = {True: "met", False: "**missed**", None: "not measured"}
    rows = [[line.work, line.against, line.wanted, line.found, words[line.met]] for line in targets.lines(results)]
    return table(["work", "against", "target", "median (spread of rounds)", ""], rows)


def detail_tables(results: Results) -> str:
    """One table for each kind of work, a row for each side of each group."""
    kinds: dict[str, list[list[str]]] = {}
    for group, sides in results.runs.items():
        for side in sides:
            kinds.setdefault(_kind(sides), []).append(_row(results, group, side))
    parts = [table(HEADERS[kind], rows) for kind, rows in kinds.items()]
    failed = [f"- {line}" for line in failures(results)]
    return "\n\n".join([*parts, *(["Failed:\n\n" + "\n".join(failed)] if failed else [])])


HEADERS = {
    "dpo": ["group", "side", "runs", "whole process, s", "steps after the first, s each", "peak, GB", "beyond load"],
    "score": ["group", "side", "runs", "pairs/s", "work, s", "peak, GB", "beyond load"],
    "sample": ["group", "side", "runs", "tokens/s", "by batch size", "peak, GB", "beyond load"],
    "answers": ["group", "side", "runs", "ms per answer", "work, s", "peak, GB", "beyond load"],
    "sweep": ["group", "side", "runs", "work, s", "S and T, s", "peak, GB", "beyond load"],
    "whole": ["group", "side", "runs", "whole process, s", "", "peak, GB", ""],
    "none": ["group", "side", "runs", "", "", "", ""],
}


def _kind(sides: dict[str, list[dict]]) -> str:
    runs = [run for found in sides.values() for run in found if "error" not in run]
    if not runs:
        return "none"
    marks = {"whole": "whole", "later_flops": "dpo", "rates": "sample", "bound": "score", "stages": "sweep"}
    return next((kind for mark, kind in marks.items() if mark in runs[0]), "answers")


def _row(results: Results, group: str, side: str) -> list[str]:
    runs = targets.sound(results, group, side)
    head = [group, side, str(len(runs))]
    if not runs:
        return [*head, "failed", "", "", ""]
    kind = _kind({side: runs})
    kinds = {"dpo": _dpo, "score": _score, "sample": _sample, "answers": _answers, "sweep": _sweep, "whole": _whole}
    figures = kinds[kind](runs)
    above = _spread([(r["peak"] - r["loaded"]) / 1e9 for r in runs if "loaded" in r], 2)
    return [*head, *figures, _spread([r["peak"] / 1e9 for r in runs], 2), above]


def _dpo(runs: list[dict]) -> list[str]:
    later = [targets.steady(r) / (len(r["steps"]) - 1) for r in runs if len(r["steps"]) > 1]
    return [_spread([r["wall"] for r in runs]), _spread(later, 2)]


def _score(runs: list[dict]) -> list[str]:
    return [_spread([r["pairs"] / targets.work(r) for r in runs], 2), _spread([targets.work(r) for r in runs])]


def _sample(runs: list[dict]) -> list[str]:
    sizes = {size: _spread([r["rates"][size] for r in runs], 0) for size in runs[0]["rates"]}
    by_size = "; ".join(f"{size}: {rate}" for size, rate in sizes.items() if size)
    return [_spread([targets.best_rate(r) for r in runs], 0), by_size]


def _answers(runs: list[dict]) -> list[str]:
    each = [1000 * targets.work(r) / r["answers"] for r in runs]
    return [_spread(each), _spread([targets.work(r) for r in runs])]


def _sweep(runs: list[dict]) -> list[str]:
    stages = runs[0]["stages"]
    shared, cell = sweeps.parts(stages, sum(stage["stage"] == "policy" for stage in stages))
    parts = f"{shared:.1f} and {cell:.1f}" if shared else ""  # of single runs nothing is shared
    return [_spread([targets.work(r) for r in runs]), parts]


def _whole(runs: list[dict]) -> list[str]:
    return [_spread([r["wall"] for r in runs]), ""]


def _spread(values: Sequence[float], digits: int = 1) -> str:
    """The median, and the least and largest in brackets where there are several."""
    if not values:
        return ""
    ordered = sorted(values)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    if len(ordered) == 1:
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} ({ordered[0]:.{digits}f} to {ordered[-1]:.{digits}f})"


def failures(results: Results) -> list[str]:
    """Jobs that gave no result, and why."""
    return [
        f"{group}, {side}: {run['error']}"
        for group, sides in results.runs.items()
        for side, runs in sides.items()
        for run in runs
        if "error" in run
    ]


def render(results: Results, *, details: bool) -> str:
    parts = [hardware(results.head), target_table(results)]
    skipped = results.head.get("skipped", [])
    if details:
        parts.append(detail_tables(results))
        if skipped:
            parts.append("Left out, for want of time (`make bench-full` has no limit): " + "; ".join(skipped) + ".")
    return "\n\n".join(parts)


def between(text: str, new: str, start: str = START, end: str = END) -> str:
    """The text with what stands between the marks replaced; raises ValueError without both marks, once each."""
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"{start} and {end} must stand there once each, in this order")
    before, rest = text.split(start)
    return f"{before}{start}\n{new}\n{end}{rest.split(end)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="the file to write the tables into")
    parser.add_argument("--details", action="store_true", help="every group, not the targets only")
    parser.add_argument("--results", type=Path, default=RESULTS / "bench.json")
    options = parser.parse_args()
    text = render(read(options.results), details=options.details)
    if options.write is None:
        print(text)
    else:
        options.write.write_text(between(options.write.read_text(encoding="utf-8"), text), encoding="utf-8")


if __name__ == "__main__":
    main()
