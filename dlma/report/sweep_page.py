"""The page of a sweep: tables, charts, a link to every cell, answers side by side. One file, no outside resource."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import quote

from dlma.config.schema import SweepOptions
from dlma.report import run_page, sweep_charts
from dlma.report import sections as page_sections
from dlma.report import tables as sweep_tables
from dlma.report.tables import Known, Table, head, unit
from dlma.runs.folder import Cell, read_evals
from dlma.statistics.intervals import Estimate
from dlma.sweep import curves
from dlma.sweep.curves import KL, PERPLEXITY, Curve
from dlma.sweep.estimates import estimate, tested_metrics
from dlma.sweep.results import Result, bases
from dlma.sweep.settings import SHARED_ARMS, Setting, metrics_of

SAMPLE_PROMPTS, SAMPLE_COLUMNS = 200, 12
VALUES_IN_WORDS = ("not reached", "not shown", "more seeds, not prompts", "yes")
STYLE = "<style>.sweep td{text-align:right;white-space:nowrap} .sweep th{text-align:right} .sweep .bounds{margin:0} "
STYLE += ".sweep td:first-child,.sweep th:first-child{text-align:left;white-space:normal} "
STYLE += ".sweep .name{text-align:left} h3{margin-top:18px}</style>"


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


def render(page: SweepPage) -> bytes:
    """The page's bytes: the same for the same runs."""
    sections = [section for section in _sections(page) if section[2]]
    done = sum(bool(cell.arms) for cell in page.cells)
    artificial = any(name.startswith("lab-") for name in bases(page.found))
    lines = [run_page.CONTENT_WARNING, *([run_page.LAB_NOTE] if artificial else [])]
    slots = {
        "TITLE": escape(page.title),
        "META": escape(f"{len(page.final)} rows from {done} finished runs"),
        "HEADLINE": escape(headline(page.cells, page.missing)),
        "CALLOUTS": '<div class="callout">' + "".join(f"<p>{escape(line)}</p>" for line in lines) + "</div>",
        "FOOTER": escape(lines[-1] if artificial else "Every interval is 95 %, two-sided."),
        "ANSWERS": run_page.embed(_samples(page.final)),
    }
    return run_page.page(slots, sections)


def headline(cells: Sequence[Cell], missing: int) -> str:
    """How many cells are in the table, and what became of the others."""
    counts: dict[str, int] = {}
    for cell in cells:
        counts[cell.status] = counts.get(cell.status, 0) + 1
    parts = [f"{count} {status}" for status, count in counts.items()]
    parts += [f"{missing} not started"] if missing else []
    return f"{len(cells) + missing} cells: {', '.join(parts)}." if parts else "No cell."


def _sections(page: SweepPage) -> list[tuple[str, str, str]]:
    tables = sweep_tables.tables(page.found, page.known, page.chosen.margin)
    said = "".join(f'<p class="note">{escape(line)}</p>' for line in sweep_tables.notes(page.found, page.chosen.margin))
    return [
        ("tables", "Tables", STYLE + "".join(map(_table, tables)) + said if tables else ""),
        ("bars", "Methods", _bars(page)),
        ("wins", "Win, tie, lose", _wins(page)),
        ("frontier", "Frontier", _frontier(page)),
        ("grids", "Grids", _grids(page)),
        ("cells", "Cells", _cells(page)),
        ("answers", "Answers", _answers(page)),
    ]


def _table(table: Table) -> str:
    named = [any(_is_name(row[i]) for row in table.rows) for i in range(len(table.heads))]
    marks = [' class="name"' if name else "" for name in named]
    heads = "".join(f"<th{mark}>{escape(text)}</th>" for mark, text in zip(marks, table.heads, strict=True))
    lines = "".join(
        "<tr>" + "".join(f"<td{mark}>{_shown(one)}</td>" for mark, one in zip(marks, row, strict=True)) + "</tr>"
        for row in table.rows
    )
    return (
        f'<h3>{escape(table.title)}</h3><div class="scroll"><table class="sweep"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _is_name(text: str) -> bool:
    """Whether a cell names something, such as a metric; what begins with a digit, a sign or a dash is a value."""
    return text[:1].isalpha() and text not in VALUES_IN_WORDS


def _shown(text: str) -> str:
    """A cell; its bounds on a line of their own."""
    value, bracket, bounds = text.partition(" [")
    return escape(value) + (f'<br><span class="bounds">[{escape(bounds)}</span>' if bracket else "")


def _by_base(rows: Sequence[Setting]) -> Mapping[str, list[Setting]]:
    found: dict[str, list[Setting]] = {}
    for row in rows:
        found.setdefault(row.base, []).append(row)
    return found


def _bars(page: SweepPage) -> str:
    """A chart per base and metric of the main table's tested ones, and KL."""
    parts = []
    for base, rows in _by_base(page.final).items():
        metrics = metrics_of(rows)
        for metric in [*tested_metrics(rows), "kl"]:
            items = [(row.label, e) for row in rows if (e := estimate(metrics[metric], list(row.arms.values())))]
            chart = sweep_charts.bars(items, unit(metric), head(metric))
            parts.append(f"<div><h3>{escape(f'{base}: {head(metric)}')}</h3>{chart}</div>" if chart else "")
    lead = '<p class="lead">Means with 95 % intervals over prompts and seeds.</p>'
    return lead + f'<div class="grid2">{"".join(parts)}</div>' if any(parts) else ""


def _wins(page: SweepPage) -> str:
    parts = []
    for base in bases(page.found):
        own = [one for one in page.found if one.base == base]
        for (against, judge), items in sweep_tables.wins(own).items():
            title = f"against {against} by {judge}"
            parts.append(f"<h3>{escape(f'{base}: {title}')}</h3>{sweep_charts.wins(items, title)}")
    keys = "".join(
        f'<span class="key k-{css}">{name}</span>'
        for css, name in (("better", "win"), ("tie", "tie"), ("worse", "lose"))
    )
    return f'<div class="legend">{keys}</div>{"".join(parts)}' if parts else ""


def _frontier(page: SweepPage) -> str:
    metric, parts = curves.metric_of(page.rows, page.chosen.metric), []
    if metric is None:
        return ""
    drawn = curves.along_kl(page.rows, page.chosen.curve_axis)
    for base in dict.fromkeys(curve.base for curve in drawn):
        inside = [curve for curve in drawn if curve.base == base]
        lines = [_line(curve, metric, KL.name) for curve in inside]
        chart = sweep_charts.frontier(lines, page.chosen.kl_levels, unit(metric), head(metric))
        fluent = _against_perplexity(inside, metric)
        parts.append(f"<h3>{escape(base)}</h3>{sweep_charts.legend([line.name for line in lines])}{chart}{fluent}")
    lead = (
        f'<p class="lead">{escape(head(metric))} against KL from the base, one curve per method, from the base at KL 0 '
        "through its settings, or through the policies that a run kept on its way. Dotted: the KLs at which methods "
        "are compared (table above), read between two points on a straight line in the root of KL. Below, the same "
        "points against the perplexity of the answers under the base.</p>"
    )
    return lead + "".join(parts) if parts else ""


def _against_perplexity(drawn: Sequence[Curve], metric: str) -> str:
    lines = [_line(curve, metric, PERPLEXITY) for curve in drawn]
    values = [x.value for line in lines for _, x, _ in line.points]
    if not values:
        return ""
    label = head(PERPLEXITY)
    return sweep_charts.frontier(lines, (), unit(metric), head(metric), label, 0.98 * min(values))


def _line(curve: Curve, metric: str, across: str) -> sweep_charts.Line:
    """A curve's points in the order of their KL."""
    points = [(row.label, both) for row in curve.every if (both := curves.point(row, metric, across)) is not None]
    return sweep_charts.Line(curve.label, [(label, x, y) for label, (x, y) in points])


def _grids(page: SweepPage) -> str:
    """A heat map where the settings of a method vary in exactly two numbers that do not run along a curve."""
    parts = []
    for curve in curves.along_kl(page.final, _beside_the_curves(page)):
        axes = _axes(curve.points)
        if axes is None:
            continue
        for metric in [*tested_metrics(curve.points), "kl"]:
            values = _grid(curve.points, axes, metric)
            chart = sweep_charts.heat(*axes, values, unit(metric), head(metric))
            title = f"{curve.base}, {curve.label}: {head(metric)}"
            parts.append(f"<div><h3>{escape(title)}</h3>{chart}</div>" if chart else "")
    return f'<div class="grid2">{"".join(parts)}</div>' if any(parts) else ""


def _beside_the_curves(page: SweepPage) -> list[str] | None:
    """Where it is told which overrides run along a curve, the others that are numbers everywhere."""
    if page.chosen.curve_axis is None:
        return None
    keys = dict.fromkeys(key for row in page.final for key in row.overrides)
    values = {key: [row.overrides[key] for row in page.final if key in row.overrides] for key in keys}
    return [k for k in keys if k not in page.chosen.curve_axis and all(map(curves.is_number, values[k]))]


def _axes(points: Sequence[Setting]) -> tuple[sweep_charts.Axis, sweep_charts.Axis] | None:
    keys = dict.fromkeys(key for row in points for key in row.overrides)
    varying = {key: {row.overrides.get(key) for row in points} for key in keys}
    varying = {key: values for key, values in varying.items() if len(values) > 1 and None not in values}
    if len(varying) != 2:
        return None
    return tuple(sweep_charts.Axis(key, sorted(values, key=float)) for key, values in varying.items())


def _grid(
    points: Sequence[Setting], axes: tuple[sweep_charts.Axis, sweep_charts.Axis], metric: str
) -> dict[tuple[str, str], Estimate]:
    x, y = axes
    metrics, found = metrics_of(points), {}
    for row in points:
        e = estimate(metrics[metric], list(row.arms.values()))
        if e is not None:
            found[row.overrides[x.name], row.overrides[y.name]] = e
    return found


def _cells(page: SweepPage) -> str:
    """The ledger: every cell, what became of it, and its own report."""
    lines = []
    for cell in page.cells:
        target = quote(os.path.relpath(cell.folder / "report.html", page.folder))
        named = escape(cell.name)
        link = f'<a href="{target}">{named}</a>' if (cell.folder / "report.html").is_file() else named
        kind = "good" if cell.status == "done" else "bad"
        reason = escape(cell.reason or "")
        lines.append(
            f'<tr><td>{link}</td><td><span class="badge {kind}">{escape(cell.status)}</span></td><td>{reason}</td></tr>'
        )
    if not lines:
        return ""
    return (
        "<table><thead><tr><th>cell</th><th>state</th><th>reason</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


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
        for answered in read_evals(row.runs[seed].folder):
            if answered.arm != row.arm:
                continue
            judged = judged or answered.harmful is not None
            if len(prompts) < SAMPLE_PROMPTS or answered.prompt_id in prompts:
                empty = {"question": answered.question, "category": answered.category, "a": {}}
                entry = prompts.setdefault(answered.prompt_id, empty)
                entry["a"].setdefault(row.label, run_page.answer(answered))
    labels = [row.label for row in shown] or ["base"]
    css = {row.label: f"c-{row.arm if row.arm in (*SHARED_ARMS, 'aligned') else 'other'}" for row in shown}
    return {
        "arms": labels,
        "labels": {label: label for label in labels},
        "css": css,
        "judged": judged,
        "rows": list(prompts.values()),
    }


def _answers(page: SweepPage) -> str:
    """The controls of the samples; report.js fills in the cases."""
    chosen = _chosen(page.final)
    if chosen is None:
        return ""
    shown, seed = chosen
    evals = [row for row in read_evals(shown[0].runs[seed].folder) if row.arm == shown[0].arm]
    inside = sum(row.base == shown[0].base for row in page.final)
    cut = f", the first {len(shown)} of {inside} rows of the table" if len(shown) < inside else ""
    lead = f'<p class="lead">Answers on {escape(shown[0].base)}, seed {seed}{cut}.</p>'
    return lead + page_sections.answers(evals, SAMPLE_PROMPTS)
