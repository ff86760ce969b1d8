"""Prompt pairs side by side: the ranking in the terminal, workbench.csv and the page.

The ranking uses no truth. Where one is known it stands in columns of its own, and says how far to trust the ranking.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from dlma.checks.prompt_measures import MEASURES, MeasuredPair, agreement, measured
from dlma.report import table as tables
from dlma.report.charts import run as charts
from dlma.report.page import LAB_NOTE, Section, page, part
from dlma.report.table import Column, Table, Text, print_table
from dlma.screen import Console
from dlma.statistics.format import bounded, number

SHOWN = ("separation", "construction", "accuracy", "spread", "difference", "longer", "length_bias", "refusal_positive")
SHORT = {
    "separation": "mean R",
    "spread": "sd R",
    "clarity": "mean/sd",
    "kl_positive": "KL(+|-)",
    "kl_negative": "KL(-|+)",
    "difference": "differ",
    "refusal_positive": "refuse+",
    "longer": "longer",
    "length_bias": "R~len",
    "construction": "+better",
    "accuracy": "sign(R)",
}


def csv_bytes(entries: Sequence[MeasuredPair]) -> bytes:
    """workbench.csv: a line per pair in order of rank; each measure with its 95 % interval over prompts."""
    columns = [Column(name, "code") for name in ("rank", "prompts", "positive", "negative", "true_gap", "n")]
    columns += [Column(name, "value") for name in MEASURES]
    lines = []
    for rank, e in enumerate(entries, start=1):
        gap = None if e.gap is None else repr(round(e.gap, 6))
        separation = e.measures["separation"]
        assert separation is not None
        about = (rank, e.name, e.positive, e.negative, gap, separation.n)
        lines.append([*about, *(e.measures[name] for name in MEASURES)])
    return tables.csv(Table("", columns, lines))


def shown(entries: Sequence[MeasuredPair], rank_by: str) -> list[str]:
    """The measures of the terminal's table: the one that ranks, then those that are known for some pair."""
    known = [name for name in SHOWN if any(entry.measures[name] is not None for entry in entries)]
    return list(dict.fromkeys([rank_by, *known]))


def note(entries: Sequence[MeasuredPair], rank_by: str) -> str:
    """What is known of the ranking itself."""
    found = agreement(entries, rank_by)
    if found is None:
        return f"Ranked by {rank_by}, without any truth."
    return (
        f"Ranked by {rank_by}, without any truth; its rank correlation with the grammar's true strength is "
        f"{bounded(found, '')} over {found.n} pairs."
    )


def print_ranking(entries: Sequence[MeasuredPair], rank_by: str, head: str, console: Console | None = None) -> None:
    """The pairs in order of rank, with the main measures."""
    console = console or Console(soft_wrap=True)
    widest, known = max(len(entry.name) for entry in entries), shown(entries, rank_by)
    names = known[: max(2, (console.width - widest - 5) // 10)]  # a number takes 7 characters, and 3 of padding
    columns = [Column("", "count"), Column("prompts", "code"), *(Column(SHORT[name], "value") for name in names)]
    lines = [
        [rank, entry.name, *(_short(entry, name) for name in names)] for rank, entry in enumerate(entries, start=1)
    ]
    notes = [f"{SHORT[name]}: {MEASURES[name][0]}" for name in names]
    notes += ["A wider terminal shows more; every measure is in workbench.csv."] if len(names) < len(known) else []
    print_table(Table(f"prompt pairs on {head}", columns, lines, notes), console)
    console.print(note(entries, rank_by))


def _short(entry: MeasuredPair, name: str) -> str | None:
    """A measure without its bounds."""
    estimate = entry.measures[name]
    return None if estimate is None else number(estimate.value, MEASURES[name][1])


def render(entries: Sequence[MeasuredPair], rank_by: str, *, title: str, meta: str, is_lab: bool) -> bytes:
    """The page: the ranking as a figure, against the truth where there is one, and the table of all measures."""
    return page(
        [
            Section("ranking", "Ranking", _ranking(entries, rank_by)),
            Section("measures", "All measures", tables.html(_table(entries))),
        ],
        title=title,
        meta=meta,
        headline=note(entries, rank_by),
        notices=[LAB_NOTE] if is_lab else [],
        footer="Intervals are 95 %, two-sided, over prompts; nothing was trained.",
        answers={"arms": ["base"], "rows": []},
    )


def _ranking(entries: Sequence[MeasuredPair], rank_by: str) -> Markup:
    (label, unit), against = MEASURES[rank_by], "construction"
    known = [(entry.name, found) for entry, found in measured(entries, rank_by)]
    spots = [
        (entry.name, found.value, right)
        for entry, found in measured(entries, rank_by)
        if (right := entry.measures[against]) is not None
    ]
    cloud = charts.scatter(spots, SHORT[rank_by], "The ranking against the truth") if spots else ""
    dots = charts.ranking(known, f"{SHORT[rank_by]} {unit}".strip(), label)
    titles = {"short": SHORT[rank_by], "label": label.capitalize(), "against": MEASURES[against][0].capitalize()}
    return part("workbench.html", "ranking", ranking=dots, cloud=cloud, **titles)


def _table(entries: Sequence[MeasuredPair]) -> Table:
    names = [name for name in MEASURES if any(entry.measures[name] is not None for entry in entries)]
    columns = [Column("rank", "count"), Column("prompts, positive, negative"), Column("true strength", "value")]
    columns += [Column(n.replace("_", " "), "value", MEASURES[n][1], tip=MEASURES[n][0]) for n in names]
    lines = []
    for rank, e in enumerate(entries, start=1):
        name = Text(e.name, below=(_cut(e.positive), _cut(e.negative)), strong=True)
        gap = None if e.gap is None else number(e.gap, "")
        lines.append([rank, name, gap, *(e.measures[n] for n in names)])
    return Table("", columns, lines, [f"{n.replace('_', ' ')}: {MEASURES[n][0]}" for n in names])


def _cut(text: str, limit: int = 80) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
