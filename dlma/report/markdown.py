"""Markdown: tables, and escaping of text from outside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dlma.screen import visible

_SPECIAL = re.compile(r"[\\`*$~]|(?<![^\W_])_|(?<=\])[(\[:]|!(?=\[)")  # a _ inside of a word marks nothing up
_BLOCK = re.compile(r"[#>+\-=|]|(?<=\d)[.)]")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Heads, a rule, and a line for each row; a cell is Markdown, and does not break out of its place."""
    return "\n".join([_row(heads), "|" + "---|" * len(heads), *map(_row, rows)])


def plain(text: str) -> str:
    """Text on one line, of which no Markdown reader makes anything but text; for a cell or a heading."""
    line = _SPECIAL.sub(lambda found: "\\" + found[0], " ".join(visible(text).split()))
    line = re.sub(r"&(?=#?\w+;)", "&amp;", line).replace("<", "&lt;")
    return line.replace("://", ":&#47;&#47;").replace("www.", "www&#46;")  # an address is no link


def paragraph(text: str) -> str:
    """The same for a line of its own, which begins no list, heading or quote."""
    line = plain(text)
    first = _BLOCK.search(line)
    if first is None or not (first.start() == 0 or line[: first.start()].isdigit()):
        return line
    return f"{line[: first.start()]}\\{line[first.start() :]}"


def code(text: str) -> str:
    """Text on one line as a code span, whatever backticks it has."""
    line = " ".join(visible(text).split())
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def fenced(text: str, language: str) -> str:
    """Lines as a block of code that none of them ends."""
    lines = visible(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", lines)), default=0))
    return f"{fence}{language}\n{lines}\n{fence}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(one.split()).replace("<", "&lt;").replace("|", "\\|") for one in cells) + " |"
