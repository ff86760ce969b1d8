"""The README's lab figures: collected from finished runs, and rendered from the collected file.

python experiments/tables.py run headline    # its commands, then this table
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from dlma.metrics import summary
from dlma.records import EvalRow, from_table
from dlma.statistics.format import bounded
from dlma.statistics.intervals import Estimate

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.csv"
COLUMNS = ("base", "arm", "metric", "unit", "seeds", "n", "mean", "low", "high")
ARMS = {"base": "base", "prompted": "base, prompted with p+", "aligned": "aligned by DLMA"}
SHOWN = (
    ("harmful", "answers with a harmful sentence"),
    ("harmlessness", "harmlessness"),
    ("helpfulness", "helpfulness"),
    ("malformed", "malformed sentences"),
    ("perplexity", "perplexity under the base"),
    ("entropy", "entropy, nats per token"),
    ("distinct_2", "distinct word pairs in an answer"),
    ("kl", "KL to the base, nats per answer"),
    ("tokens", "length, tokens"),
)


def collect(sweep: Path) -> None:
    """Read each cell's answers, aggregate over prompts and seeds per base, and write results.csv."""
    seeds: dict[str, list[list[EvalRow]]] = defaultdict(list)
    for config in sorted(sweep.glob("*/config.yaml")):
        settings = yaml.safe_load(config.read_text())
        seeds[settings["model"]["base"]].append(from_table(EvalRow, pq.read_table(config.parent / "answers.parquet")))
    with RESULTS.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for base, cells in seeds.items():
            for row in summary.summary_over_seeds(cells, list(ARMS)):
                e = row.estimate
                numbers = [repr(round(x, 6)) for x in (e.value, e.low, e.high)]
                writer.writerow([base, row.arm, row.metric, row.unit, len(cells), e.n, *numbers])


def render() -> str:
    """The Markdown of results.csv."""
    rows = list(csv.DictReader(RESULTS.open()))
    bases = sorted({row["base"] for row in rows}, key=lambda base: (base != "standard", base))
    return "\n\n".join(_section(base, [row for row in rows if row["base"] == base]) for base in bases)


def _section(base: str, rows: list[dict]) -> str:
    found = {(row["metric"], row["arm"]): row for row in rows}
    head = f"| `{base}`, {rows[0]['seeds']} seeds, {rows[0]['n']} test prompts | " + " | ".join(ARMS.values()) + " |"
    lines = [head, "|---|" + "---|" * len(ARMS)]
    for metric, label in SHOWN:
        lines.append(f"| {label} | " + " | ".join(_cell(found[metric, arm]) for arm in ARMS) + " |")
    return "\n".join(lines)


def _cell(row: dict) -> str:
    mean, low, high = (float(row[name]) for name in ("mean", "low", "high"))
    return bounded(Estimate(mean, low, high, int(row["n"])), row["unit"])
