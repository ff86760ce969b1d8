"""CSV files: text that a spreadsheet would take for a formula is written as text, and read back as it was.

A cell of text that begins with one of `= + - @`, tab, line feed or carriage return gets an apostrophe before it, as
does one that has such an apostrophe already; a number, also one given as text, stays a number.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from dlma.screen import visible

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_GUARDED = re.compile(r"'+[=+\-@\t\r\n]")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Heads and rows as a file; None is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([cell(one) for one in row] for row in (heads, *rows))
    return out.getvalue().encode("utf-8", "replace")


def read(source: TextIO) -> list[dict[str, str]]:
    """The rows of a file that `table` wrote, by head; raises csv.Error where it is none."""
    return [{_bare(name): _bare(value) for name, value in row.items()} for row in csv.DictReader(source)]


def cell(value: object) -> object:
    """What stands for a value in a file."""
    if not isinstance(value, str) or _is_number(value):
        return value
    text = visible(value)
    return f"'{text}" if _FORMULA.match(text) else text


def _bare(value: Any) -> Any:
    return value[1:] if isinstance(value, str) and _GUARDED.match(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip() and text.isascii()
