"""The paper's numbers beside ours, cell by cell, with one word for each: `make verify-paper RUNS="outputs/paper_7b"`.

    python experiments/paper/verify.py [FOLDER ...]      # finished runs, or sweeps of them

reproduced      the difference's 95 % interval lies within the tolerance
not reproduced  it lies outside of it
underpowered    it reaches across the tolerance's edge: more prompts or seeds are needed
not comparable  the two are not numbers of one thing: unknown unit or coordinate, or other settings
unknown         the paper's number is not known here, or nothing was measured

The interval takes in the paper's own sampling error where its n is known. Over several seeds it joins the largest
interval over prompts with Student's over seeds, which is wider than needed, never narrower.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from scipy.special import ndtri, stdtrit

HERE = Path(__file__).resolve().parent
TABLES = ("metrics.csv", "versus.csv")  # versus.csv: mode=versus, against other methods
VERDICTS = ("reproduced", "not reproduced", "underpowered", "not comparable", "unknown")
MARKS = {"P": "", "V": "", "2": " (second-hand)", "I": " (inferred)", None: ""}


@dataclass(frozen=True)
class Cell:
    """One number of the paper; null is unknown. `unit` is "share" for values between 0 and 1."""

    table: str
    tolerance: float
    unit: str | None
    model: str | None
    data: str | None
    method: str
    metric: str
    value: float | None
    n: int | None
    mark: str | None
    source: str | None
    against: str | None = ""

    @property
    def name(self) -> str:
        rival = "" if self.against == "" else f" against {self.against or '?'}"
        return f"{self.model or '?'} {self.data or '?'} {self.method}{rival} {self.metric}"

    @property
    def open_coordinates(self) -> list[str]:
        return [name for name in ("model", "data", "against", "unit") if getattr(self, name) is None]


@dataclass(frozen=True)
class Measured:
    """Our number for a cell, its 95 % interval, and the settings in which its runs differ from the paper's."""

    value: float
    low: float
    high: float
    n: int
    seeds: int
    differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """A finished run: its method, where its settings differ, and its metrics as (n, mean, low, high)."""

    model: str
    data: str
    method: str
    seed: int
    differs: tuple[str, ...]
    metrics: dict[str, tuple[int, float, float, float]]


def read_expected(path: Path) -> tuple[dict, list[Cell]]:
    """The file, and its cells."""
    page = yaml.safe_load(path.read_text(encoding="utf-8"))
    cells = [
        Cell(**{"table": table["name"], "tolerance": table["tolerance"], "unit": table["unit"], **cell})
        for table in page["tables"]
        for cell in table["cells"]
    ]
    return page, cells


def read_runs(folders: Sequence[Path], page: dict) -> list[Run]:
    """The finished runs in the folders, themselves or one level below."""
    found = []
    for folder in folders:
        for status in sorted([*folder.glob("status.json"), *folder.glob("*/status.json")]):
            if json.loads(status.read_text())["status"] == "done" and (status.parent / "metrics.csv").is_file():
                found.append(_run(status.parent, page))
    return found


def _run(folder: Path, page: dict) -> Run:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    rows = [row for name in TABLES if (folder / name).is_file() for row in _table(folder / name)]
    data = {"path": config["data"].get("path"), "subset": config["data"].get("subset")}
    return Run(
        model=_name(page["models"], config["model"].get("path")),
        data=_name(page["data"], data),
        method=rows[0]["method"],
        seed=int(rows[0]["seed"]),
        differs=tuple(_differences(config, page["settings"])),
        metrics={row["metric"]: (int(row["n"]), *(_float(row[k]) for k in ("mean", "low", "high"))) for row in rows},
    )


def _table(path: Path) -> list[dict]:
    with path.open(newline="") as source:
        return list(csv.DictReader(source))


def _name(names: dict, value: object) -> str:
    """The cell's name for what a run's config holds, or that itself."""
    return next((name for name, known in names.items() if known == value), str(value))


def _float(text: str) -> float:
    return float(text) if text else math.nan


def _differences(config: dict, settings: dict) -> Iterator[str]:
    for key, setting in settings.items():
        node: object = config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if node != setting["value"]:
            yield f"{key}={node}"


def measured(cell: Cell, runs: Sequence[Run]) -> Measured | None:
    """Our number: of each seed the first run that has the cell's model, data, method and metric.

    The base's answers are in every run.
    """
    own = [r for r in runs if (r.model, r.data) == (cell.model, cell.data) and cell.method in ("base", r.method)]
    found: dict[int, tuple[Run, tuple[int, float, float, float]]] = {}
    for run in own:
        for name, numbers in run.metrics.items():
            if _is(name, cell):
                found.setdefault(run.seed, (run, numbers))
    return _joined([run for run, _ in found.values()], [numbers for _, numbers in found.values()]) if found else None


def _joined(runs: Sequence[Run], rows: Sequence[tuple[int, float, float, float]]) -> Measured:
    """One number from (n, mean, low, high) of each seed."""
    counts, values, lows, highs = zip(*rows, strict=True)
    between = 0.0
    if len(values) > 1:
        between = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    below = max(value - low for value, low in zip(values, lows, strict=True))
    above = max(high - value for value, high in zip(values, highs, strict=True))
    mean = statistics.fmean(values)
    differs = tuple(dict.fromkeys(line for run in runs for line in run.differs))
    bounds = mean - math.hypot(below, between), mean + math.hypot(above, between)
    return Measured(mean, *bounds, min(counts), len(values), differs)


def _is(name: str, cell: Cell) -> bool:
    """Whether a metric's name in metrics.csv, arm/metric or arm/metric/judge/against, is the cell's."""
    arm, metric, *rest = name.split("/")
    wanted = "base" if cell.method == "base" else "aligned"
    return arm == wanted and metric == cell.metric and (rest[-1] if rest else "") == (cell.against or "")


def verdict(cell: Cell, ours: Measured | None) -> tuple[str, str]:
    """One of VERDICTS, and why."""
    if cell.value is None:
        return "unknown", "the paper's number is open"
    if cell.open_coordinates:
        return "not comparable", f"unknown: {', '.join(cell.open_coordinates)}"
    if ours is None:
        return "unknown", "not measured"
    if ours.differs:
        return "not comparable", f"other settings: {', '.join(ours.differs)}"
    own_error = 0.0
    if cell.unit == "share" and cell.n:
        own_error = float(ndtri(0.975)) * math.sqrt(cell.value * (1 - cell.value) / cell.n)
    gap = ours.value - cell.value
    low = gap - math.hypot(ours.value - ours.low, own_error)
    high = gap + math.hypot(ours.high - ours.value, own_error)
    difference = f"difference {gap:+.3f} [{low:+.3f}, {high:+.3f}]"
    if -cell.tolerance <= low and high <= cell.tolerance:
        return "reproduced", difference
    if low > cell.tolerance or high < -cell.tolerance:
        return "not reproduced", difference
    return "underpowered", difference


def lines(cells: Sequence[Cell], runs: Sequence[Run]) -> Iterator[tuple[str, ...]]:
    """A row for each cell: table, cell, expected, measured, interval, tolerance, verdict, why."""
    for cell in cells:
        ours = measured(cell, runs)
        word, why = verdict(cell, ours)
        expected = "open" if cell.value is None else f"{cell.value:g}{MARKS[cell.mark]}"
        value, bounds = ("", "") if ours is None else (f"{ours.value:.3f}", f"[{ours.low:.3f}, {ours.high:.3f}]")
        yield cell.table, cell.name, expected, value, bounds, f"{cell.tolerance:g}", word, why


def main(folders: Sequence[str]) -> None:
    page, cells = read_expected(HERE / "expected.yaml")
    runs = read_runs([Path(folder) for folder in folders], page)
    rows = list(lines(cells, runs))
    head = ("table", "cell", "expected", "measured", "95 % interval", "tolerance", "verdict", "why")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    counts = {word: sum(row[6] == word for row in rows) for word in VERDICTS}
    print(f"\n{len(runs)} finished runs; " + ", ".join(f"{word} {count}" for word, count in counts.items()))
    if not any(cell.mark == "P" for cell in cells):
        print("No number here was read in the paper's text; (second-hand) ones are not to be cited as the paper's.")


if __name__ == "__main__":
    main(sys.argv[1:])
