"""The page that shows many runs (mode=serve): its frame, and the parts that it asks for as they are chosen.

A part is made here, by templates that escape whatever a model, a user or a folder's name says; the script puts it into
the page as it stands.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dlma import csv_text
from dlma.metrics.summary import label
from dlma.records import TokenRewards
from dlma.report import sections
from dlma.report.charts import run as run_charts
from dlma.report.charts import sweep as sweep_charts
from dlma.report.page import CONTENT_WARNING, Section, part, whole
from dlma.report.run_tables import ARM_LABELS
from dlma.report.table import Cell, Column, Table, Text, Value, html
from dlma.runs.folder import TRAJECTORY
from dlma.runs.library import ListedRun
from dlma.runs.pages import ArmAnswers
from dlma.statistics.intervals import Estimate
from dlma.store.owned import TRAIN

CASES, PAIRS = 10, 4  # on a page of answers, of token rewards
COLUMNS = 8  # arms side by side, at the most
HEADS = ("harmful", "sentiment", "self_reward")  # which metric stands beside KL: the first that the runs have
PARTS = {"runs": "Runs", "answers": "Answers", "tokens": "R token by token", "curves": "Curves"}


def frame(root: str) -> bytes:
    """The page before anything is chosen."""
    shown = [Section(name, title, part("serve.html", f"{name}_frame")) for name, title in PARTS.items()]
    return whole(
        "page.html",
        ("page.js", "serve.js"),
        {},
        title=f"Runs of {root}",
        meta="on this machine only; Ctrl-C in the terminal ends it",
        headline="",
        notices=[CONTENT_WARNING],
        warnings=[],
        sections=shown,
        footer="Intervals are 95 %, over prompts.",
        connect="'self'",
    )


def complaint(line: str) -> Markup:
    """What is said in place of a part."""
    return part("serve.html", "complaint", line=line)


# Runs


def runs(found: Sequence[ListedRun], skipped: Sequence[str], *, alert: str, find: str) -> Markup:
    """The runs as a table, those with an alert where one is chosen."""
    shown = [run for run in found if (not alert or alert in run.alerts) and find.casefold() in _about(run)]
    metric = _head(found)
    columns = [Column("", "chart"), Column("run"), Column("method", "code"), Column("base"), Column("seed")]
    columns += [Column(label(metric), "value"), Column(label("kl"), "value"), Column("alerts")]
    lines = [_line(run, metric) for run in shown]
    table = html(Table("", columns, lines), stacked=True) if lines else complaint("No run matches.")
    alerts = sorted({name for run in found for name in run.alerts})
    count = f"{len(shown)} of {len(found)} runs"
    return part("serve.html", "runs", table=table, alerts=alerts, alert=alert, skipped=skipped, count=count)


def _about(run: ListedRun) -> str:
    return " ".join((run.name, run.method, run.base)).casefold()


def _line(run: ListedRun, metric: str) -> list[Cell]:
    tick = Text("", chart=part("serve.html", "tick", id=run.id, name=run.name))
    units = {row.metric: row.unit for row in run.rows}
    found = [(run.estimate(name, run.arm), units.get(name, "")) for name in (metric, "kl")]
    values = [None if one is None else Value(one, unit) for one, unit in found]
    return [tick, run.name, run.method, run.base, run.seed, *values, ", ".join(run.alerts)]


def _head(found: Sequence[ListedRun]) -> str:
    """The metric of the table and, at first, of the curves."""
    measured = {row.metric for run in found for row in run.rows}
    return next((name for name in HEADS if name in measured), HEADS[-1])


# Answers


@dataclass(frozen=True)
class Shown:
    """A column of the answers: what it is headed by, its colour as a style or a class, and the answers."""

    head: str
    style: str
    css: str
    answers: ArmAnswers


def columns(found: Sequence[tuple[ListedRun, Mapping[str, ArmAnswers]]], arms: str) -> list[Shown]:
    """The arms of the chosen runs; answers that several runs share are one column.

    What a run made has the colour of its curves.
    """
    same: dict[tuple[str, str], list[tuple[int, ArmAnswers]]] = {}
    for i, (run, inside) in enumerate(found):
        for arm, one in inside.items():
            if arms == "all" or arm == run.arm:
                same.setdefault((arm, one.digest), []).append((i, one))
    shown = []
    for (arm, _), each in same.items():
        i, one = each[0]
        run = found[i][0]
        head = f"{ARM_LABELS.get(arm, arm)}: {run.name}" + (f" and {len(each) - 1} more" if len(each) > 1 else "")
        css = f"c-{arm}" if arm in ARM_LABELS else "c-other"
        shown.append(Shown(head, sweep_charts.colour(i) if arm == run.arm else "", css, one))
    return shown


def answers(
    shown: Sequence[Shown], prompts: Sequence[str], page: int, *, category: str, categories: Sequence[str]
) -> Markup:
    """A page of prompts, each with its answers side by side."""
    page = min(page, max(0, (len(prompts) - 1) // CASES))
    inside, kept = prompts[page * CASES : (page + 1) * CASES], shown[:COLUMNS]
    read = [column.answers.read(inside) for column in kept]
    cases = [_case(prompt, kept, read) for prompt in inside]
    left = f"the first {COLUMNS} of {len(shown)} columns" if len(shown) > COLUMNS else ""
    pager = _pager(page, CASES, len(inside), len(prompts), "prompts")
    return part("serve.html", "answers", cases=cases, left=left, pager=pager, category=category, categories=categories)


def _case(prompt: str, shown: Sequence[Shown], read: Sequence[Mapping[str, dict]]) -> dict:
    rows = [found.get(prompt) for found in read]
    first = next(row for row in rows if row is not None)
    judged = any(row is not None and row["harmful"] is not None for row in rows)
    sides = list(zip(shown, rows))
    return {"question": first["question"], "category": first["category"], "judged": judged, "sides": sides}


def _pager(page: int, size: int, here: int, total: int, of: str) -> Markup:
    first = page * size
    text = f"{first + 1}–{first + here} of {total:,} {of}" if here else f"0 {of}"
    return part("serve.html", "pager", page=page, text=text, last=first + here >= total)


# R token by token


def tokens(run: str, rows: Sequence[TokenRewards], questions: Mapping[str, str], page: int, total: int) -> Markup:
    """A page of a run's pairs as heat maps; rows: of that page."""
    pager = _pager(page, PAIRS, len(rows), total, f"pairs of {run}, the largest R first")
    cards = sections.examples(rows, questions, most=max(2, len(rows)))
    return part("serve.html", "tokens", cards=cards, pager=pager)


# Curves


def curves(found: Sequence[ListedRun], metric: str) -> Markup:
    """The chosen runs' training over one another, and a metric against KL."""
    names = [run.name for run in found]
    train = [_rows(run, TRAIN) for run in found]
    charts = [one for one in (_training(names, train, *entry) for entry in sections.TRAINING) if one]
    known = sorted({row.metric for run in found for row in run.rows if row.metric != "kl"})
    metric = metric if metric in known else _head(found)
    lines = [sweep_charts.Line(run.name, _along_kl(run, metric)) for run in found]
    unit = next((row.unit for run in found for row in run.rows if row.metric == metric), "")
    return part(
        "serve.html",
        "curves",
        keys=sweep_charts.legend(names),
        charts=charts,
        frontier=sweep_charts.frontier(lines, (), unit, label(metric)),
        metrics=[(name, label(name)) for name in known],
        metric=metric,
    )


def _training(
    names: Sequence[str], train: Sequence[list[dict]], title: str, columns: Sequence[tuple[str, str, str]], zero: bool
) -> tuple[str, Markup] | None:
    """Every column of a chart of training, one line a run."""
    series = []
    for column, _, name in columns:
        for i, rows in enumerate(train):
            points = [(float(row["step"]), float(row[column])) for row in rows if row.get(column)]
            of = names[i] if len(columns) == 1 else f"{names[i]}, {name}"
            xs, ys = [x for x, _ in points], [y for _, y in points]
            series.append(run_charts.Series(of, "", xs, ys, smooth=column != "lr", style=sweep_charts.colour(i)))
    chart = run_charts.line_chart(series, "step", title, zero)
    return (title, chart) if chart else None


def _along_kl(run: ListedRun, metric: str) -> list[tuple[str, Estimate, Estimate]]:
    """The base, the policies that were kept on the way, and what the run is about."""
    on_the_way = _rows(run, TRAJECTORY)  # from the base to the last step
    points = [(f"step {row['step']}", _estimate(row, "kl"), _estimate(row, metric)) for row in on_the_way]
    if not points:
        points = [(arm, run.estimate("kl", arm), run.estimate(metric, arm)) for arm in dict.fromkeys(("base", run.arm))]
    return [(name, kl, value) for name, kl, value in points if kl is not None and value is not None]


def _estimate(row: Mapping[str, str], metric: str) -> Estimate | None:
    if not row.get(metric):
        return None
    value, low, high = (float(row.get(f"{metric}{end}") or "nan") for end in ("", "_low", "_high"))
    return Estimate(value, low, high, int(row["n"]))


def _rows(run: ListedRun, name: str) -> list[dict[str, str]]:
    """A CSV of a run; nothing where it has none."""
    path = run.folder / name
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as source:
            return csv_text.read(source)
    except csv.Error as reason:
        raise ValueError(f"{name}: {reason}") from reason
