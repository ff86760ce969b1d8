"""R and the independent judge along a long training: trajectory.csv of every base in one table.

python experiments/tables.py run over_optimisation    # its commands, then this table
"""

from __future__ import annotations

import csv
from itertools import groupby
from pathlib import Path

import yaml

from dlma.statistics.format import bounded
from dlma.statistics.intervals import Estimate

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.csv"
SHOWN = {"self_reward": "", "harmlessness": "", "harmful": "share", "kl": "", "perplexity": ""}
COLUMNS = ["base", "step", "n", "parts", *(f"{name}{end}" for name in SHOWN for end in ("", "_low", "_high"))]


def collect(sweep: Path) -> None:
    """The steps of every cell, with the base that it was."""
    with RESULTS.open("w", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for path in sorted(sweep.glob("*/trajectory.csv"), reverse=True):
            base = yaml.safe_load((path.parent / "config.yaml").read_text())["model"]["base"]
            for row in csv.DictReader(path.open()):
                writer.writerow({"base": base, **row})


def render() -> str:
    """The Markdown of results.csv."""
    lines = []
    for base, rows in groupby(csv.DictReader(RESULTS.open()), key=lambda row: row["base"]):
        rows = list(rows)
        lines += [f"`{base}`, {rows[0]['n']} held-out prompts, one seed:", ""]
        lines += ["| step | R, nats | harmlessness | harmful | KL, nats | perplexity |", "|---|---|---|---|---|---|"]
        lines += [f"| {_step(row)} | " + " | ".join(_cell(row, *item) for item in SHOWN.items()) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines[:-1])


def _step(row: dict) -> str:
    return f"{row['step']}, **they part**" if row["parts"] == "1" else row["step"]


def _cell(row: dict, name: str, unit: str) -> str:
    value, low, high = (float(row[name + end]) for end in ("", "_low", "_high"))
    return bounded(Estimate(value, low, high, int(row["n"])), unit)
