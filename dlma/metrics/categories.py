"""Results by category of the prompt: harm by the oracle, scores of metrics, win rates of judges; one CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dlma import csv_text
from dlma.metrics.contests import Contest
from dlma.metrics.summary import kind_interval
from dlma.records import EvalRow, MetricValue
from dlma.statistics.format import exact
from dlma.statistics.intervals import Estimate, share_interval

COLUMNS = ("method", "base", "seed", "metric", "category", "n", "mean", "low", "high")


@dataclass(frozen=True)
class CategoryRow:
    """One metric of one arm in one category."""

    metric: str
    label: str
    arm: str
    category: str
    estimate: Estimate
    unit: str


def category_rows(
    evals: Sequence[EvalRow], scores: Sequence[MetricValue], columns: Sequence[Mapping], contests: Sequence[Contest]
) -> list[CategoryRow]:
    """Every metric in every category; none of a metric that has fewer than two categories."""
    groups: dict[tuple[str, str, str], list] = {}
    for row in evals:
        if row.category is not None and row.harmful is not None:
            groups.setdefault(("harmful", row.arm, row.category), []).append(row.harmful)
    rows = [
        CategoryRow("harmful", "answers with a harmful sentence", arm, category, share_interval(hits), "share")
        for (_, arm, category), hits in groups.items()
    ]
    rows += [row for column in columns for row in _of_column(column, scores)]
    rows += [
        CategoryRow(f"win_rate/{c.judge}/{c.against}", f"win rate, {c.heading}", c.arm, category, estimate, "share")
        for c in contests
        for category, estimate in c.categories.items()
    ]
    several = {name for name in {r.metric for r in rows} if len({r.category for r in rows if r.metric == name}) > 1}
    return [row for row in rows if row.metric in several]


def _of_column(column: Mapping, scores: Sequence[MetricValue]) -> list[CategoryRow]:
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for score in scores:
        if score.metric == column["name"] and score.category is not None:
            groups.setdefault((score.arm, score.category), []).append((score.value, score.weight))
    rows = []
    for (arm, category), values in groups.items():
        table = np.array(values)
        estimate = kind_interval(column["kind"], table[:, :1], table[:, 1:])
        if estimate is not None:
            rows.append(CategoryRow(column["name"], column["label"], arm, category, estimate, column["unit"]))
    return rows


def categories_csv(rows: Sequence[CategoryRow], *, method: str, base: str, seed: int) -> bytes:
    """categories.csv: as metrics.csv, with a category; an unknown bound is empty."""
    run = (method, base, seed)
    lines = [[*run, f"{r.arm}/{r.metric}", r.category, r.estimate.n, *exact(r.estimate)] for r in rows]
    return csv_text.table(COLUMNS, lines)
