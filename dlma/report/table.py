"""A table, and everything that can be made of it: rich, HTML, Markdown, LaTeX and CSV, each of which escapes text.

A cell is an estimate, text, a count or nothing. `Value` and `Text` say more of a cell than an estimate or a string
alone; what a renderer has no place for, such as a chart in a terminal, it leaves out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup
from rich import box
from rich.markup import escape
from rich.table import Table as RichTable

from dlma import csv_text
from dlma.report import markdown as md
from dlma.report.page import part
from dlma.screen import Console, visible
from dlma.statistics.format import exact, interval, number
from dlma.statistics.intervals import Estimate

NOTHING = "–"
WIDE, NAME = 100, 14  # characters: of a terminal in which bounds stand beside their values; of a name, at least


@dataclass(frozen=True)
class Value:
    """An estimate with a unit of its own; counted: its n is shown too."""

    estimate: Estimate
    unit: str = ""
    counted: bool = False


@dataclass(frozen=True)
class Text:
    """Text with what stands small beside it (`unit`, `bounds`) and under it (`below`), a mark, a link, a chart."""

    text: str
    unit: str = ""
    bounds: str = ""
    below: Sequence[str] = ()
    badge: Literal["", "good", "bad"] = ""
    link: str = ""
    chart: Markup = field(default_factory=Markup)
    strong: bool = False


Cell = Estimate | Value | Text | str | int | None


@dataclass(frozen=True)
class Column:
    """kind: text stands left, values and counts right; a chart's cells are `Text` whose chart alone is shown.

    unit: of the estimates in it; below, tip, key: small print, an explanation and a colour of the head
    """

    head: str
    kind: Literal["text", "value", "count", "code", "chart"] = "text"
    unit: str = ""
    below: str = ""
    tip: str = ""
    key: str = ""


@dataclass(frozen=True)
class Table:
    """Columns, and rows of as many cells; notes are said below it. No title where what stands around says it."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()

    @property
    def heads(self) -> list[str]:
        return [column.head for column in self.columns]


def measure(estimate: Estimate | None, unit: str) -> Value | None:
    """An estimate in a unit as a cell, where there is one."""
    return None if estimate is None else Value(estimate, unit)


def small(unit: str) -> str:
    """A unit as small print: percent stands in the values themselves."""
    return "" if unit == "share" else unit


def shown(cell: Cell, column: Column) -> Text:
    """A cell as text and small print, whatever it is."""
    if cell is None:
        return Text(NOTHING)
    if isinstance(cell, Text):
        return cell
    if isinstance(cell, str):
        return Text(cell)
    if isinstance(cell, int):
        return Text(f"{cell:,}")
    value = Value(cell, column.unit) if isinstance(cell, Estimate) else cell
    estimate, count = value.estimate, f" n {value.estimate.n:,}" if value.counted else ""
    return Text(number(estimate.value, value.unit), bounds=interval(estimate, value.unit) + count, strong=True)


def texts(table: Table) -> list[list[Text]]:
    """Every cell as `shown`."""
    return [[shown(cell, column) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows]


# HTML and the terminal


def html(table: Table, *, stacked: bool = False) -> Markup:
    """stacked: bounds stand under their values."""
    return part("table.html", "table", table=table, rows=texts(table), stacked=stacked)


def print_table(table: Table, console: Console, *, stacked: bool | None = None) -> None:
    """In the terminal; values stay whole, and the notes follow dimly. stacked: unless told, where it is narrow."""
    stacked = console.width < WIDE if stacked is None else stacked
    styled = RichTable(
        title=escape(table.title), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left", pad_edge=False
    )
    kept = [i for i, column in enumerate(table.columns) if column.kind != "chart"]
    for column in (table.columns[i] for i in kept):
        head = "\n".join(map(escape, filter(None, (column.head, column.below))))
        if column.kind == "text":
            styled.add_column(head, overflow="fold", min_width=NAME)
        else:
            justify: Literal["left", "right"] = "left" if column.kind == "code" else "right"
            style = "dim" * (column.kind == "count")
            styled.add_column(head, justify=justify, style=style, no_wrap=True)
    for row in texts(table):
        styled.add_row(*(_rich(row[i], stacked) for i in kept))
    console.print(styled)
    for note in table.notes:
        console.print(escape(note), style="dim")


def _rich(cell: Text, stacked: bool) -> str:
    text = escape(", ".join(filter(None, (cell.text, cell.unit))))
    bounds = f"{chr(10) if stacked else ' '}[dim]{escape(cell.bounds)}[/dim]" if cell.bounds else ""
    return text + bounds + "".join(f"\n[dim]{escape(under)}[/dim]" for under in cell.below)


# Plain text


def plain(table: Table) -> tuple[list[str], list[list[str]]]:
    """Heads and cells on one line each, charts left out."""
    kept = [i for i, column in enumerate(table.columns) if column.kind != "chart"]
    heads = [" ".join(filter(None, (table.columns[i].head, table.columns[i].below))) for i in kept]
    return heads, [[line(row[i]) for i in kept] for row in texts(table)]


def line(cell: Text) -> str:
    """All that a cell says, but for its chart."""
    text = ", ".join(filter(None, (cell.text, cell.unit)))
    return " ".join(filter(None, (text, cell.bounds, *cell.below)))


def markdown(table: Table) -> str:
    """With its title as a heading, where it has one."""
    heads, rows = plain(table)
    head = f"### {md.plain(table.title)}\n\n" if table.title else ""
    body = md.table(list(map(md.plain, heads)), [list(map(md.plain, row)) for row in rows])
    return "\n\n".join([head + body, *map(md.paragraph, table.notes)])


def csv(table: Table) -> bytes:
    """Exact: a column of values is three, with `_low` and `_high`; heads are names; nothing is an empty cell."""
    heads, rows = [], []
    for column in table.columns:
        ends = ("", "_low", "_high") if column.kind == "value" else ("",)
        heads += [column.head + end for end in ends]
    for row in table.rows:
        rows.append([one for cell, column in zip(row, table.columns, strict=True) for one in _exact(cell, column)])
    return csv_text.table(heads, rows)


def _exact(cell: Cell, column: Column) -> Sequence[object]:
    if column.kind == "value":
        estimate = cell.estimate if isinstance(cell, Value) else cell
        assert estimate is None or isinstance(estimate, Estimate)
        return exact(estimate)
    return [cell.text if isinstance(cell, Text) else cell]


# LaTeX


def latex(table: Table) -> str:
    """A tabular (booktabs) under its title as a comment."""
    heads, rows = plain(table)
    parts = [
        latex_comment(table.title),
        r"\begin{tabular}{l" + "r" * (len(heads) - 1) + "}",
        r"\toprule",
        _tex_row(heads),
        r"\midrule",
        *map(_tex_row, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join([*parts, *map(latex_comment, table.notes), ""])


def latex_comment(text: str) -> str:
    """A line of comment."""
    return f"% {_tex(text)}"


_TEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"↑": r"$\uparrow$", "↓": r"$\downarrow$", "×": r"$\times$", "–": "--", "<": "$<$", ">": "$>$", "\0": "{}"},
}


def _tex(text: str) -> str:
    """Text on one line as LaTeX's text; two hyphens make no dash."""
    return "".join(_TEX.get(c, c) for c in re.sub("(?<=-)-", "\0-", " ".join(visible(text).split())))


def _tex_row(cells: Sequence[str]) -> str:
    """A row; a first cell like `[2cm]` or `*` would be read as an argument of the line before."""
    text = " & ".join(map(_tex, cells))
    return (f"{{{text[0]}}}{text[1:]}" if text.startswith(("[", "*")) else text) + r" \\"
