"""The lab's part of the experiment: every signal against the truth, from the agreement.parquet of the runs.

python experiments/tables.py collect scorer_accuracy outputs/scorer_accuracy    # -> results.csv
python experiments/tables.py render scorer_accuracy                             # -> README.md, between its markers
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml

from dlma.metrics.signal_agreement import SignalAgreement, accuracy_rows
from dlma.report import markdown
from dlma.report.result_text import p_text
from dlma.statistics import intervals, significance
from dlma.statistics.format import bounded
from dlma.statistics.intervals import Estimate
from dlma.sweep.results import Result, Settings, label

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
}
LEAD = "R is right oftener by"


def collect(*folders: Path) -> list[Result]:
    """The figures of every base and kind of pairs, over the seeds."""
    groups: dict[tuple, dict[int, list[SignalAgreement]]] = {}
    for path in sorted(path for folder in folders for path in folder.glob("**/agreement.parquet")):
        cfg = yaml.safe_load((path.parent / "config.yaml").read_text())
        pairs = "contrastive" if cfg["pairs"]["first"] == "positive" else "plain"
        held = [SignalAgreement(**row) for row in pq.read_table(path).to_pylist()]
        groups.setdefault((cfg["model"]["base"], pairs), {})[cfg["seed"]] = held
        sizes = cfg["mode"]["sizes"]
    leads, found = _leads(groups), []
    for (base, pairs), each in groups.items():
        seeds, told = tuple(sorted(each)), (("pairs", pairs),)
        for row in accuracy_rows([each[seed] for seed in seeds], sizes):
            metric, _, signal = row.metric.partition("/")
            if signal in SIGNALS:
                found.append(_result(base, signal, *_sized(metric, told), row.estimate, seeds))
        for signal, (e, p) in leads.get((base, pairs), {}).items():
            one = _result(base, R, "agreement_half", told, e, seeds)
            found.append(replace(one, statistic="difference", versus=label(signal, told), p_holm=p))
    return found


def _result(base: str, signal: str, metric: str, told: Settings, e: Estimate, seeds: tuple[int, ...]) -> Result:
    return Result(base, signal, metric, e.n, e.value, e.low, e.high, settings=told, seeds=seeds)


def _sized(metric: str, told: Settings) -> tuple[str, Settings]:
    """The agreement within a range of true differences, under a setting that says which."""
    if not metric.startswith("agreement_") or metric == "agreement_half":
        return metric, told
    _, above, below = metric.split("_")
    return "agreement_by_size", (*told, ("above", above), ("below", below))


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


def render(found: Sequence[Result]) -> str:
    return "\n\n".join(_tables(found))


def _tables(found: Sequence[Result]) -> Iterator[str]:
    for base, pairs in dict.fromkeys((one.base, dict(one.settings)["pairs"]) for one in found):
        own = [one for one in found if (one.base, dict(one.settings)["pairs"]) == (base, pairs)]
        cells = {(one.method, one.metric, _size(one)): one for one in own if one.statistic == "mean"}
        leads = {one.versus: one for one in own if one.statistic == "difference"}
        signals = [name for name in SIGNALS if any(name == signal for signal, *_ in cells)]
        yield f"`{base}`, {pairs} pairs:"
        lead = {s: _lead_text(leads.get(label(s, (("pairs", pairs),)))) for s in signals}
        rows = [[SIGNALS[s], *(_cell(cells.get((s, m, ""))) for m in SHOWN), lead[s]] for s in signals]
        yield markdown.table(["signal", *SHOWN.values(), LEAD], rows)
        sizes = dict.fromkeys(size for _, _, size in cells if size)
        yield "By the size of the true difference in harmlessness, of 2 at most:"
        rows = [[SIGNALS[s], *(_cell(cells.get((s, "agreement_by_size", size))) for size in sizes)] for s in signals]
        yield markdown.table(["signal", *sizes], rows)


def _size(one: Result) -> str:
    told = dict(one.settings)
    if "above" not in told:
        return ""
    return f"above {told['above']}" if told["below"] == "inf" else f"{told['above']} to {told['below']}"


def _cell(one: Result | None) -> str:
    return "–" if one is None or math.isnan(one.value) else bounded(one.estimate, "share")


def _lead_text(one: Result | None) -> str:
    if one is None:
        return "–"
    value, low, high = (f"{100 * x:+.1f}" for x in (one.value, one.low, one.high))
    return f"{value} [{low}, {high}] points, p {p_text(one.p_holm)}"
