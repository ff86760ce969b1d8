"""What each round brings, and how R drifts: results.csv of the runs, drift.csv of the rounds of the longest ones.

python experiments/tables.py run iteration    # its commands, then these tables
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from dlma.evaluation.statistics import Estimate, mean_interval
from dlma.report import sweep, sweep_cells, sweep_frontier, sweep_table
from dlma.report.summary import interval, number
from dlma.report.sweep_cells import Cell

HERE = Path(__file__).resolve().parent
RESULTS, DRIFT, README = HERE / "results.csv", HERE / "drift.csv", HERE / "README.md"
START, END = "<!-- results:start -->\n", "<!-- results:end -->"
LEVELS = (0.5, 1.0, 2.0)
SHOWN = {
    "kl": ("KL, nats", ""),
    "harmful": ("answers with harm", "share"),
    "self_reward": ("R by the base, nats", ""),
    "malformed": ("malformed", "share"),
    "helpfulness": ("helpfulness", ""),
    "perplexity": ("perplexity", ""),
}
OF_A_ROUND = {
    "current_mean": "mean R by the round's model",
    "frozen_mean": "by the base",
    "mean_change": "mean change of R",
    "sign_agreement": "same sign",
    "rank_correlation": "rank correlation",
}
COLUMNS = ["scorer", "round", "seeds", *(f"{name}{end}" for name in OF_A_ROUND for end in ("", "_low", "_high"))]


def collect(*folders: Path) -> None:
    """Every setting's means, the curves at each KL, and the rounds of the runs with the most rounds."""
    cells = sweep_cells.collect(folders)
    rows = sweep.settings(cells)
    found = [row for row in sweep_table.results(rows, tested=[]) if row.metric in SHOWN and "+" in row.seed]
    found += sweep_frontier.results(rows, None, LEVELS)
    RESULTS.write_bytes(sweep_table.write_csv(found))
    with DRIFT.open("w", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_drift([cell for cell in cells if cell.arms]))


def _drift(cells: Sequence[Cell]) -> list[dict]:
    most = max(cell.config["iterations"] for cell in cells)
    lines = []
    for scorer in ("current", "frozen"):
        longest = [c for c in cells if (c.config["iterations"], c.config["iteration.scorer"]) == (most, scorer)]
        tables = [list(csv.DictReader((cell.folder / "rounds.csv").open())) for cell in longest]
        for rounds in zip(*tables, strict=True):
            line = {"scorer": scorer, "round": rounds[0]["round"], "seeds": len(rounds)}
            for name in OF_A_ROUND:
                e = mean_interval([float(one[name]) for one in rounds])
                line |= {name: e.value, f"{name}_low": e.low, f"{name}_high": e.high}
            lines.append(line)
    return lines


def render() -> str:
    """The Markdown of both files."""
    found = sweep_table.read_csv(RESULTS)
    settings = list(dict.fromkeys(row.method for row in found if row.metric in SHOWN))
    lines = _head(["setting", *(label for label, _ in SHOWN.values())])
    for name in settings:
        cells = {row.metric: row for row in found if row.method == name and row.metric in SHOWN}
        lines.append(_row([f"`{name}`", *(_cell(cells[metric], unit) for metric, (_, unit) in SHOWN.items())]))
    heads = [f"harmful at kl {level:g}" for level in LEVELS]
    curves = list(dict.fromkeys(row.method for row in found if row.metric in heads))
    if curves:
        lines += ["", "Answers with harm at the same KL to the base, over rounds or epochs:", ""]
        lines += _head(["curve", *(f"{level:g} nats" for level in LEVELS)])
    for name in curves:
        cells = {row.metric: row for row in found if row.method == name}
        shown = [_cell(cells[head], "share") if head in cells else "–" for head in heads]
        lines.append(_row([f"`{name}`", *shown]))
    lines += ["", "R of each round's pairs, nats (intervals over seeds):", "", *_drift_table()]
    return "\n".join(lines)


def _drift_table() -> list[str]:
    lines = _head(["R for training by", "round", *OF_A_ROUND.values()])
    for row in csv.DictReader(DRIFT.open()):
        estimates = [
            Estimate(*(float(row[name + end]) for end in ("", "_low", "_high")), n=int(row["seeds"]))
            for name in OF_A_ROUND
        ]
        lines.append(
            _row([row["scorer"], row["round"], *(f"{number(e.value, '')} {interval(e, '')}" for e in estimates)])
        )
    return lines


def _cell(row: sweep_table.Result, unit: str) -> str:
    return f"{number(row.mean, unit)} {interval(Estimate(row.mean, row.low, row.high, row.n), unit)}"


def _head(names: Sequence[str]) -> list[str]:
    return [_row(names), "|" + "---|" * len(names)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def write_readme(text: str) -> None:
    """Put the text between the README's markers."""
    before, rest = README.read_text().split(START)
    README.write_text(before + START + text + "\n" + END + rest.split(END)[1])
