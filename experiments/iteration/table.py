"""What each round brings, and how R drifts: results.csv of the runs, drift.csv of the rounds of the longest ones.

python experiments/tables.py run iteration    # its commands, then these tables
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from dlma.report import markdown
from dlma.report.result_text import cell
from dlma.runs import cells as run_folders
from dlma.runs.cells import Cell
from dlma.statistics.format import bounded
from dlma.statistics.intervals import Estimate, mean_interval
from dlma.sweep import estimates
from dlma.sweep.results import Result, by_row, over_seeds
from dlma.sweep.settings import settings

HERE = Path(__file__).resolve().parent
DRIFT = HERE / "drift.csv"
SHOWN = {
    "kl": "KL, nats",
    "harmful": "answers with harm",
    "self_reward": "R by the base, nats",
    "malformed": "malformed",
    "helpfulness": "helpfulness",
    "perplexity": "perplexity",
}
OF_A_ROUND = {
    "current_mean": "mean R by the round's model",
    "frozen_mean": "by the base",
    "mean_change": "mean change of R",
    "sign_agreement": "same sign",
    "rank_correlation": "rank correlation",
}
COLUMNS = ["scorer", "round", "seeds", *(f"{name}{end}" for name in OF_A_ROUND for end in ("", "_low", "_high"))]


def collect(*folders: Path) -> list[Result]:
    """Every setting's means, and the rounds of the runs with the most rounds."""
    cells = run_folders.collect(folders)
    with DRIFT.open("w", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_drift([one for one in cells if one.arms]))
    found = over_seeds(estimates.results(settings(cells), tested=[]))
    return [one for one in found if one.metric in SHOWN and one.statistic == "mean"]


def _drift(cells: Sequence[Cell]) -> list[dict]:
    most = max(one.config["iterations"] for one in cells)
    lines = []
    for scorer in ("current", "frozen"):
        longest = [c for c in cells if (c.config["iterations"], c.config["iteration.scorer"]) == (most, scorer)]
        tables = [list(csv.DictReader((one.folder / "rounds.csv").open())) for one in longest]
        for rounds in zip(*tables, strict=True):
            line = {"scorer": scorer, "round": rounds[0]["round"], "seeds": len(rounds)}
            for name in OF_A_ROUND:
                e = mean_interval([float(one[name]) for one in rounds])
                line |= {name: e.value, f"{name}_low": e.low, f"{name}_high": e.high}
            lines.append(line)
    return lines


def render(found: Sequence[Result]) -> str:
    """The Markdown of both files."""
    rows = [{one.metric: one for one in row} for row in by_row(found).values()]
    lines = [[f"`{row['kl'].label}`", *(cell(row[metric]) for metric in SHOWN)] for row in rows]
    means = markdown.table(["setting", *SHOWN.values()], lines)
    return "\n\n".join([means, "R of each round's pairs, nats (intervals over seeds):", _drift_table()])


def _drift_table() -> str:
    rows = []
    for row in csv.DictReader(DRIFT.open()):
        estimates = [
            Estimate(*(float(row[name + end]) for end in ("", "_low", "_high")), n=int(row["seeds"]))
            for name in OF_A_ROUND
        ]
        rows.append([row["scorer"], row["round"], *(bounded(e, "") for e in estimates)])
    return markdown.table(["R for training by", "round", *OF_A_ROUND.values()], rows)
