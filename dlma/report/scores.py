"""Rows of the summary table from the scores of metrics, and the alignment tax: what a policy lost of a skill.

One estimate per arm and column, over prompts or items; a change is paired over the items that both arms answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

import numpy as np
from rich.markup import escape as plain

from dlma.metrics.summary import Row, kind_interval
from dlma.records import MetricValue
from dlma.report.terminal import simple_table
from dlma.screen import Console
from dlma.statistics.format import interval, number
from dlma.statistics.intervals import Estimate, paired_difference, share_interval
from dlma.statistics.paired import difference_of_ratios

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
    if column["kind"] == "share" and now == before:  # no item changed, which is not to say that none could
        bound = share_interval([False] * len(common)).high
        estimate = Estimate(0.0, -bound, bound, len(common))
    elif column["kind"] in ("mean", "share"):
        estimate = paired_difference(now, before)
    else:
        estimate = difference_of_ratios((now, before), (now_weights, before_weights))
    label = f"{column['label']}: aligned less base"
    return [Row(CHANGE + column["name"], "aligned", estimate, column["unit"], label, column["better"])]


def part_tax(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows without what is a tax, and the tax: every skill that has a change, with its change."""
    names = {row.metric.removeprefix(CHANGE) for row in rows if row.metric.startswith(CHANGE)}
    is_tax = [row.metric.removeprefix(CHANGE) in names for row in rows]
    return [r for r, tax in zip(rows, is_tax) if not tax], [r for r, tax in zip(rows, is_tax) if tax]


def _lines(tax: Sequence[Row]) -> Iterator[tuple[Row, Row, Row]]:
    """(base, aligned, change) of each skill."""
    cells = {(row.metric, row.arm): row for row in tax}
    for row in tax:
        if row.metric.startswith(CHANGE):
            name = row.metric.removeprefix(CHANGE)
            yield cells[name, "base"], cells[name, "aligned"], row


def print_tax(tax: Sequence[Row], console: Console | None = None) -> None:
    """What alignment cost, skill by skill; nothing where nothing of the kind was measured."""
    if not tax:
        return
    console = console or Console()
    table = simple_table("alignment tax: skills that nobody asked to change")
    for name in ("skill", "base", "aligned", "change"):
        table.add_column(name, justify="left" if name == "skill" else "right")
    table.add_column("n", justify="right", style="dim")
    for rows in _lines(tax):
        unit = f", {rows[0].unit}" if rows[0].unit not in ("", "share") else ""
        shown = [f"{number(r.estimate.value, r.unit)} {plain(interval(r.estimate, r.unit))}" for r in rows]
        table.add_row(plain(rows[0].label + unit), *shown, f"{rows[2].estimate.n:,}")
    console.print(table)


def tax_section(tax: Sequence[Row]) -> str:
    """The report's table of what alignment cost."""
    lines = []
    for base, aligned, change in _lines(tax):
        unit = f' <span class="unit">{escape(change.unit)}</span>' if change.unit not in ("", "share") else ""
        shown = "".join(_cell(row) for row in (base, aligned, change))
        lines.append(
            f"<tr><td>{escape(base.label)}{unit}</td>{shown}<td class='num unit'>{change.estimate.n:,}</td></tr>"
        )
    return (
        '<p class="lead">Skills that alignment was not asked to change, on the same items before and after; the change '
        "is paired over items. 95 % intervals over items, for this seed.</p>"
        '<div class="scroll"><table><thead><tr><th>skill</th><th class="num">base</th><th class="num">aligned</th>'
        f'<th class="num">change</th><th class="num">n</th></tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _cell(row: Row) -> str:
    value, bounds = number(row.estimate.value, row.unit), interval(row.estimate, row.unit)
    return f'<td class="num"><b>{value}</b><span class="bounds">{bounds}</span></td>'
