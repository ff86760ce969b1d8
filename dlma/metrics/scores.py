"""Rows of the summary table from the scores of metrics, and the alignment tax: what a policy lost of a skill.

One estimate per arm and column, over prompts or items; a change is paired over the items that both arms answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from dlma.metrics.summary import Row, kind_interval
from dlma.records import MetricValue
from dlma.statistics.intervals import Estimate
from dlma.statistics.paired import bounded_difference, difference_of_ratios

CHANGE = "change/"
_Table = dict[str, tuple[float, float]]


def score_rows(scores: Sequence[MetricValue], columns: Sequence[Mapping]) -> list[Row]:
    """Rows in the order of the columns, then of the arms, each tax followed by its change; empty columns are left out.

    columns: name, label, kind, unit, better and tax of each, as the metric declared them
    """
    tables = _tables(scores)
    arms = list(dict.fromkeys(arm for arm, _ in tables))
    rows = []
    for column in columns:
        found = {arm: tables[arm, column["name"]] for arm in arms if (arm, column["name"]) in tables}
        for arm, table in found.items():
            estimate = _estimate(table, column["kind"])
            if estimate is not None:
                rows.append(Row(column["name"], arm, estimate, column["unit"], column["label"], column["better"]))
        if column["tax"] and {"base", "aligned"} <= set(found):
            rows += _change(column, found["base"], found["aligned"])
    return rows


def _tables(scores: Sequence[MetricValue]) -> dict[tuple[str, str], _Table]:
    """(value, weight) of every item by (arm, metric); several scores of an item are averaged."""
    found: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for score in scores:
        items = found.setdefault((score.arm, score.metric), {})
        items.setdefault(score.item, []).append((score.value, score.weight))
    return {key: {i: tuple(np.mean(v, axis=0)) for i, v in items.items()} for key, items in found.items()}


def _estimate(table: _Table, kind: str) -> Estimate | None:
    numbers = np.array(list(table.values()))
    return kind_interval(kind, numbers[:, :1], numbers[:, 1:])


def _change(column: Mapping, base: _Table, aligned: _Table) -> list[Row]:
    """Aligned less base; none where they share fewer than two items."""
    common = [item for item in base if item in aligned]
    if len(common) < 2:
        return []
    (now, now_weights), (before, before_weights) = (zip(*(table[i] for i in common)) for table in (aligned, base))
    if column["kind"] in ("mean", "share"):
        estimate = bounded_difference(now, before, unit=1.0 if column["kind"] == "share" else None)
    else:
        estimate = difference_of_ratios((now, before), (now_weights, before_weights))
    label = f"{column['label']}: aligned less base"
    return [Row(CHANGE + column["name"], "aligned", estimate, column["unit"], label, column["better"])]


def part_tax(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows without what is a tax, and the tax: every skill that has a change, with its change."""
    names = {row.metric.removeprefix(CHANGE) for row in rows if row.metric.startswith(CHANGE)}
    is_tax = [row.metric.removeprefix(CHANGE) in names for row in rows]
    return [r for r, tax in zip(rows, is_tax) if not tax], [r for r, tax in zip(rows, is_tax) if tax]


def tax_lines(tax: Sequence[Row]) -> Iterator[tuple[Row, Row, Row]]:
    """(base, aligned, change) of each skill."""
    cells = {(row.metric, row.arm): row for row in tax}
    for row in tax:
        if row.metric.startswith(CHANGE):
            name = row.metric.removeprefix(CHANGE)
            yield cells[name, "base"], cells[name, "aligned"], row
