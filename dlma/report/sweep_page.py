"""The page of a sweep: tables, charts, a link to every cell, answers side by side. One file, no outside resource."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from dlma.config.schema import SweepOptions
from dlma.report import sections
from dlma.report import tables as sweep_tables
from dlma.report.charts import sweep as charts
from dlma.report.charts.axes import legend
from dlma.report.page import CONTENT_WARNING, INTERVALS, LAB_NOTE, Section, page, part
from dlma.report.result_text import head, unit
from dlma.report.run_page import answer
from dlma.report.table import Cell as TableCell
from dlma.report.table import Column, Table, Text, html
from dlma.report.tables import Known
from dlma.runs.cells import Cell
from dlma.runs.folder import REPORT, RunFolder
from dlma.statistics.intervals import Estimate
from dlma.sweep import curves
from dlma.sweep.curves import KL, PERPLEXITY, Curve
from dlma.sweep.estimates import estimate, tested_metrics
from dlma.sweep.results import Result, bases
from dlma.sweep.settings import SHARED_ARMS, Setting, metrics_of

SAMPLE_PROMPTS, SAMPLE_COLUMNS = 200, 12


@dataclass(frozen=True)
class SweepPage:
    """All that the page shows; `folder` is where it will lie, for the links; `rows` may hold policies on the way."""

    title: str
    folder: Path
    cells: Sequence[Cell]
    rows: Sequence[Setting]
    found: Sequence[Result]
    chosen: SweepOptions
    known: Known = field(default_factory=dict)
    missing: int = 0

    @property
    def final(self) -> list[Setting]:
        """The rows of the table."""
        return [row for row in self.rows if row.final]


def render(found: SweepPage) -> bytes:
    """The page's bytes: the same for the same runs."""
    done = sum(bool(cell.arms) for cell in found.cells)
    artificial = any(name.startswith("lab-") for name in bases(found.found))
    notices = [CONTENT_WARNING, *([LAB_NOTE] if artificial else [])]
    return page(
        _sections(found),
        title=found.title,
        meta=f"{len(found.final)} rows from {done} finished runs",
        headline=headline(found.cells, found.missing),
        notices=notices,
        footer=LAB_NOTE if artificial else INTERVALS,
        answers=_samples(found.final),
    )


def headline(cells: Sequence[Cell], missing: int) -> str:
    """How many cells are in the table, and what became of the others."""
    counts: dict[str, int] = {}
    for cell in cells:
        counts[cell.status] = counts.get(cell.status, 0) + 1
    parts = [f"{count} {status}" for status, count in counts.items()]
    parts += [f"{missing} not started"] if missing else []
    return f"{len(cells) + missing} cells: {', '.join(parts)}." if parts else "No cell."


def _sections(page: SweepPage) -> list[Section]:
    return [
        Section("tables", "Tables", _tables(page)),
        Section("bars", "Methods", _bars(page)),
        Section("wins", "Win, tie, lose", _wins(page)),
        Section("frontier", "Frontier", _frontier(page)),
        Section("grids", "Grids", _grids(page)),
        Section("cells", "Cells", _cells(page)),
        Section("answers", "Answers", _answers(page)),
    ]


def _figures(figures: Sequence[tuple[str, Markup]], **around: object) -> Markup:
    """Charts under their titles, those that are empty left out; nothing where all are."""
    kept = [(title, chart) for title, chart in figures if chart]
    return part("sweep.html", "figures", figures=kept, **around) if kept else Markup("")


def _tables(page: SweepPage) -> Markup:
    margin = page.chosen.margin
    found = [html(one, stacked=True) for one in sweep_tables.tables(page.found, page.known, margin)]
    notes = sweep_tables.notes(page.found, margin)
    return part("sweep.html", "tables", tables=found, notes=notes) if found else Markup("")


def _by_base(rows: Sequence[Setting]) -> Mapping[str, list[Setting]]:
    found: dict[str, list[Setting]] = {}
    for row in rows:
        found.setdefault(row.base, []).append(row)
    return found


def _bars(page: SweepPage) -> Markup:
    """A chart per base and metric of the main table's tested ones, and KL."""
    figures = []
    for base, rows in _by_base(page.final).items():
        metrics = metrics_of(rows)
        for metric in [*tested_metrics(rows), "kl"]:
            items = [(row.label, e) for row in rows if (e := estimate(metrics[metric], list(row.arms.values())))]
            figures.append((f"{base}: {head(metric)}", charts.bars(items, unit(metric), head(metric))))
    return _figures(figures, lead="Means with 95 % intervals over prompts and seeds.")


def _wins(page: SweepPage) -> Markup:
    figures = []
    for base in bases(page.found):
        own = [one for one in page.found if one.base == base]
        for (against, judge), items in sweep_tables.wins(own).items():
            title = f"against {against} by {judge}"
            figures.append((f"{base}: {title}", charts.wins(items, title)))
    keys = legend([("k-better", "win"), ("k-tie", "tie"), ("k-worse", "lose")])
    return _figures(figures, keys=keys, grid=False)


def _frontier(page: SweepPage) -> Markup:
    metric, figures = curves.metric_of(page.rows, page.chosen.metric), []
    if metric is None:
        return Markup("")
    drawn = curves.along_kl(page.rows, page.chosen.curve_axis)
    for base in dict.fromkeys(curve.base for curve in drawn):
        inside = [curve for curve in drawn if curve.base == base]
        lines = [_line(curve, metric, KL.name) for curve in inside]
        chart = charts.frontier(lines, page.chosen.kl_levels, unit(metric), head(metric))
        keys = charts.legend([line.name for line in lines])
        figures.append((base, keys + chart + _against_perplexity(inside, metric)))
    lead = (
        f"{head(metric)} against KL from the base, one curve per method, from the base at KL 0 "
        "through its settings, or through the policies that a run kept on its way. Dotted: the KLs at which methods "
        "are compared (table above), read off a fit between two points. Below, the same "
        "points against the perplexity of the answers under the base."
    )
    return _figures(figures, lead=lead, grid=False)


def _against_perplexity(drawn: Sequence[Curve], metric: str) -> Markup:
    lines = [_line(curve, metric, PERPLEXITY) for curve in drawn]
    values = [x.value for line in lines for _, x, _ in line.points]
    if not values:
        return Markup("")
    label = head(PERPLEXITY)
    return charts.frontier(lines, (), unit(metric), head(metric), label, 0.98 * min(values))


def _line(curve: Curve, metric: str, across: str) -> charts.Line:
    """A curve's points in the order of their KL."""
    points = [(row.label, both) for row in curve.every if (both := curves.point(row, metric, across)) is not None]
    return charts.Line(curve.label, [(label, x, y) for label, (x, y) in points])


def _grids(page: SweepPage) -> Markup:
    """A heat map where the settings of a method vary in exactly two numbers that do not run along a curve."""
    figures = []
    for curve in curves.along_kl(page.final, _beside_the_curves(page)):
        axes = _axes(curve.points)
        if axes is None:
            continue
        for metric in [*tested_metrics(curve.points), "kl"]:
            chart = charts.heat(*axes, _grid(curve.points, axes, metric), unit(metric), head(metric))
            figures.append((f"{curve.base}, {curve.label}: {head(metric)}", chart))
    return _figures(figures)


def _beside_the_curves(page: SweepPage) -> list[str] | None:
    """Where it is told which overrides run along a curve, the others that are numbers everywhere."""
    if page.chosen.curve_axis is None:
        return None
    keys = dict.fromkeys(key for row in page.final for key in row.overrides)
    values = {key: [row.overrides[key] for row in page.final if key in row.overrides] for key in keys}
    return [k for k in keys if k not in page.chosen.curve_axis and all(map(curves.is_number, values[k]))]


def _axes(points: Sequence[Setting]) -> tuple[charts.Levels, charts.Levels] | None:
    keys = dict.fromkeys(key for row in points for key in row.overrides)
    held = {key: {row.overrides[key] for row in points} for key in keys if all(key in row.overrides for row in points)}
    varying = [charts.Levels(key, sorted(values, key=float)) for key, values in held.items() if len(values) > 1]
    if len(varying) != 2:
        return None
    x, y = varying
    return x, y


def _grid(
    points: Sequence[Setting], axes: tuple[charts.Levels, charts.Levels], metric: str
) -> dict[tuple[str, str], Estimate]:
    x, y = axes
    metrics, found = metrics_of(points), {}
    for row in points:
        e = estimate(metrics[metric], list(row.arms.values()))
        if e is not None:
            found[row.overrides[x.name], row.overrides[y.name]] = e
    return found


def _cells(page: SweepPage) -> Markup:
    """The ledger: every cell, what became of it, and its own report."""
    lines: list[list[TableCell]] = []
    for cell in page.cells:
        report = cell.folder / REPORT
        link = quote(os.path.relpath(report, page.folder)) if report.is_file() else ""
        state = Text(cell.status, badge="good" if cell.status == "done" else "bad")
        lines.append([Text(cell.name, link=link), state, cell.reason or ""])
    return html(Table("", [Column("cell"), Column("state"), Column("reason")], lines)) if lines else Markup("")


def _chosen(rows: Sequence[Setting]) -> tuple[list[Setting], int] | None:
    """The rows whose answers are shown: of the first base, one seed that all shown have."""
    inside = [row for row in rows if row.base == rows[0].base] if rows else []
    if not inside:
        return None
    seeds = [seed for row in inside for seed in row.runs]
    seed = max(sorted(set(seeds)), key=seeds.count)
    return [row for row in inside if seed in row.runs][:SAMPLE_COLUMNS], seed


def _samples(rows: Sequence[Setting]) -> dict:
    """What report.js shows: per prompt the first answer of each row."""
    chosen = _chosen(rows)
    shown, seed = chosen if chosen else ([], 0)
    prompts: dict[str, dict] = {}
    judged = False
    for row in shown:
        for answered in RunFolder(row.runs[seed].folder).answers():
            if answered.arm != row.arm:
                continue
            judged = judged or answered.harmful is not None
            if len(prompts) < SAMPLE_PROMPTS or answered.prompt_id in prompts:
                empty: dict[str, Any] = {"question": answered.question, "category": answered.category, "a": {}}
                entry = prompts.setdefault(answered.prompt_id, empty)
                entry["a"].setdefault(row.label, answer(answered))
    labels = [row.label for row in shown] or ["base"]
    css = {row.label: f"c-{row.arm if row.arm in (*SHARED_ARMS, 'aligned') else 'other'}" for row in shown}
    return {
        "arms": labels,
        "labels": {label: label for label in labels},
        "css": css,
        "judged": judged,
        "rows": list(prompts.values()),
    }


def _answers(page: SweepPage) -> Markup:
    """The controls of the samples; report.js fills in the cases."""
    chosen = _chosen(page.final)
    if chosen is None:
        return Markup("")
    shown, seed = chosen
    evals = [row for row in RunFolder(shown[0].runs[seed].folder).answers() if row.arm == shown[0].arm]
    inside = sum(row.base == shown[0].base for row in page.final)
    cut = f", the first {len(shown)} of {inside} rows of the table" if len(shown) < inside else ""
    lead = f"Answers on {shown[0].base}, seed {seed}{cut}."
    return sections.answers(evals, SAMPLE_PROMPTS, lead)
