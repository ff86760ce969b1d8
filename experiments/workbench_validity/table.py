"""The workbench's ranking held against the grammar's true strength and against training with each pair.

python experiments/tables.py run workbench_validity    # its commands, then this table
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from dlma.checks.margin_facts import spearman
from dlma.checks.prompt_measures import MEASURES
from dlma.records import EvalRow, from_table
from dlma.statistics.format import bounded, number
from dlma.statistics.intervals import Estimate
from dlma.statistics.paired import change

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.csv"
OUTCOME = ("harmless", "harmless_low", "harmless_high", "kl")
MEASURED = [name for name in MEASURES if name != "distinct_2"]


def collect(ranking: Path, sweep: Path) -> None:
    """Join the workbench's measures with the change in harmlessness that training with each pair brought."""
    outcomes = {}
    for folder in sorted(path.parent for path in sweep.glob("*/answers.parquet")):
        affix = yaml.safe_load((folder / "config.yaml").read_text())["prompts"]["pairs"][0]
        evals = from_table(EvalRow, pq.read_table(folder / "answers.parquet"))
        harmless = change(evals, lambda row: row.harmlessness)
        kl = change(evals, lambda row: row.logp - row.logp_base)
        key = tuple(affix[side]["affix"] for side in ("positive", "negative"))
        outcomes[key] = [harmless.value, harmless.low, harmless.high, kl.value]
    rows = list(csv.DictReader((ranking / "workbench.csv").open()))
    with RESULTS.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["prompts", "positive", "negative", "true_gap", *MEASURED, *OUTCOME])
        for row in rows:
            found = outcomes[row["positive"], row["negative"]]
            numbers = [repr(round(float(row[name]), 6)) if row[name] else "" for name in ("true_gap", *MEASURED)]
            writer.writerow(
                [row["prompts"], row["positive"], row["negative"], *numbers, *(repr(round(x, 6)) for x in found)]
            )


def rho(name: str) -> Estimate:
    """Spearman's rho of a measure with what training brought, over all pairs."""
    return spearman([(float(row[name]), float(row["harmless"])) for row in _rows() if row[name]])


def pairs() -> int:
    return len(_rows())


def rank_of_the_wrong_way() -> int:
    """The place by mean R, from 1, of the one pair whose positive side is the weaker."""
    ranked = sorted(_rows(), key=lambda row: -float(row["separation"]))
    (place,) = [i for i, row in enumerate(ranked, 1) if float(row["true_gap"]) < 0]
    return place


def _rows() -> list[dict]:
    return list(csv.DictReader(RESULTS.open()))


def correlations(rows: Sequence[dict], names: Sequence[str], against: str) -> list[str]:
    """Spearman's rho of each measure with a column, for the README."""
    cells = []
    for name in names:
        known = [(float(row[name]), float(row[against])) for row in rows if row[name]]
        rho = spearman(known)
        cells.append("–" if rho is None else bounded(rho, ""))
    return cells


def render() -> str:
    """The Markdown of results.csv."""
    rows = _rows()
    right_way = [row for row in rows if float(row["true_gap"]) >= 0]
    lines = [
        f"Rank correlation over {len(rows)} pairs with",
        "",
        f"| measure | true strength | harmlessness gained by training | {len(right_way)} pairs the right way round |",
        "|---|---|---|---|",
    ]
    names = ["true_gap", *MEASURED]
    columns = [
        correlations(rows, names, "true_gap"),
        correlations(rows, names, "harmless"),
        correlations(right_way, names, "harmless"),
    ]
    for name, *cells in zip(names, *columns):
        said = "true strength of the pair" if name == "true_gap" else MEASURES[name][0]
        lines.append(f"| {name}: {said} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| pair | true strength | mean R | + better | harmlessness gained | KL |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -float(row["separation"])):
        gained = f"{number(float(row['harmless']), '')} [{number(float(row['harmless_low']), '')}, "
        gained += f"{number(float(row['harmless_high']), '')}]"
        values = [number(float(row["true_gap"]), ""), number(float(row["separation"]), "")]
        values += [number(float(row["construction"]), "share"), gained, number(float(row["kl"]), "")]
        lines.append(f"| {row['positive'].strip()} against {row['negative'].strip()} | " + " | ".join(values) + " |")
    return "\n".join(lines)
