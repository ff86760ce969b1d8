"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Heads, a rule, and a line for each row; nothing in a cell breaks out of it."""
    return "\n".join([_row(heads), "|" + "---|" * len(heads), *map(_row, rows)])


def plain(text: str) -> str:
    """Text on one line that no Markdown reader takes for HTML."""
    return " ".join(text.split()).replace("<", "&lt;")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(plain(one).replace("|", "\\|") for one in cells) + " |"
