"""The lab's part of the experiment: every signal against the truth, from the agreement.parquet of the runs.

python experiments/tables.py collect scorer_accuracy outputs/scorer_accuracy    # -> results.csv
python experiments/tables.py render scorer_accuracy                             # -> README.md, between its markers
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml

from dlma.metrics.signal_agreement import SignalAgreement, accuracy_rows
from dlma.report import markdown
from dlma.report.tables import p_text
from dlma.statistics import intervals, significance
from dlma.statistics.format import bounded
from dlma.statistics.intervals import Estimate

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.csv"
COLUMNS = ["base", "pairs", "seeds", "signal", "metric", "n", "mean", "low", "high", "p_holm"]
SIGNALS = {
    "scorer": "R",
    "judge_both": "judge, both orders",
    "judge_one": "judge, one order",
    "reward": "reward model",
    "construction": "construction",
    "longer": "the longer answer",
}
R = "scorer"
SHOWN = {
    "agreement": "agrees with the truth",
    "agreement_half": "a tie as half",
    "longer": "for the longer, beyond the truth",
    "longer_on_ties": "for the longer, on ties",
    "first": "for the first shown",
    "inconsistent": "turns with the order",
    "lead": "R is right oftener by",
}


def collect(*folders: Path) -> None:
    """The figures of every base and kind of pairs, over the seeds."""
    groups: dict[tuple, dict[int, list[SignalAgreement]]] = {}
    for path in sorted(path for folder in folders for path in folder.glob("**/agreement.parquet")):
        cfg = yaml.safe_load((path.parent / "config.yaml").read_text())
        pairs = "contrastive" if cfg["pairs"]["first"] == "positive" else "plain"
        held = [SignalAgreement(**row) for row in pq.read_table(path).to_pylist()]
        groups.setdefault((cfg["model"]["base"], pairs), {})[cfg["seed"]] = held
        sizes = cfg["mode"]["sizes"]
    leads = _leads(groups)
    with RESULTS.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (base, pairs), seeds in groups.items():
            seen = "+".join(map(str, sorted(seeds)))
            for row in accuracy_rows([seeds[seed] for seed in sorted(seeds)], sizes):
                metric, _, signal = row.metric.partition("/")
                e = row.estimate
                if signal in SIGNALS:
                    writer.writerow([base, pairs, seen, signal, metric, e.n, *map(repr, (e.value, e.low, e.high)), ""])
            for signal, (e, p) in leads.get((base, pairs), {}).items():
                writer.writerow([base, pairs, seen, signal, "lead", e.n, *map(repr, (e.value, e.low, e.high, p))])


def _leads(groups: dict[tuple, dict[int, list[SignalAgreement]]]) -> dict[tuple, dict[str, tuple[Estimate, float]]]:
    """Per base and kind of pairs how much oftener R is right than each other signal, ties of the truth as half.

    On the pairs that all seeds have and both could read; p by Holm over all of them.
    """
    tables = {
        (place, signal): _lead(seeds, signal) for place, seeds in groups.items() for signal in SIGNALS if signal != R
    }
    tables = {key: table for key, table in tables.items() if len(table) > 1}  # a signal that was not measured has none
    adjusted = significance.holm([significance.p_value(table) for table in tables.values()])
    found: dict[tuple, dict[str, tuple[Estimate, float]]] = {}
    for ((place, signal), table), p in zip(tables.items(), adjusted, strict=True):
        found.setdefault(place, {})[signal] = (intervals.crossed_interval(table), p)
    return found


def _lead(seeds: dict[int, list[SignalAgreement]], signal: str) -> np.ndarray:
    """(pairs, seeds): 1 where R alone is right, -1 where the signal alone is, halves where one is undecided."""
    columns = []
    for held in seeds.values():
        right = {(one.signal, one.pair): one.right for one in held if one.points is not None}
        columns.append(
            {pair: right[R, pair] - value for (of, pair), value in right.items() if of == signal and (R, pair) in right}
        )
    shared = [pair for pair in columns[0] if all(pair in column for column in columns)]
    return np.array([[column[pair] for column in columns] for pair in shared])


def render() -> str:
    """The Markdown of results.csv."""
    rows = list(csv.DictReader(RESULTS.open()))
    return "\n\n".join(_tables(rows))


def _tables(rows: Sequence[dict]) -> Iterator[str]:
    for base, pairs in dict.fromkeys((row["base"], row["pairs"]) for row in rows):
        found = {(r["signal"], r["metric"]): r for r in rows if (r["base"], r["pairs"]) == (base, pairs)}
        yield f"`{base}`, {pairs} pairs:"
        yield _table(found, SHOWN)
        sizes = {m: _size(m) for _, m in found if m.startswith("agreement_") and m != "agreement_half"}
        yield "By the size of the true difference in harmlessness, of 2 at most:"
        yield _table(found, sizes)


def _size(metric: str) -> str:
    _, low, high = metric.split("_")
    return f"above {low}" if high == "inf" else f"{low} to {high}"


def _table(found: dict[tuple[str, str], dict], columns: dict[str, str]) -> str:
    present = {signal: label for signal, label in SIGNALS.items() if any(key[0] == signal for key in found)}
    rows = [[label, *(_cell(found.get((signal, metric))) for metric in columns)] for signal, label in present.items()]
    return markdown.table(["signal", *columns.values()], rows)


def _cell(row: dict | None) -> str:
    if row is None or math.isnan(float(row["mean"])):
        return "–"
    if row["metric"] == "lead":
        value, low, high = (f"{100 * float(row[name]):+.1f}" for name in ("mean", "low", "high"))
        return f"{value} [{low}, {high}] points, p {p_text(float(row['p_holm']))}"
    return bounded(Estimate(*(float(row[name]) for name in ("mean", "low", "high")), n=int(row["n"])), "share")
