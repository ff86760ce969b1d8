"""What the rows of results.csv are about, read back from the names of their metrics (sweep_table.py lists them)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlma.sweep.estimates import NEEDED, Result

READ_AT = {"kl": "KL", "flops": "FLOPs"}  # what a curve is read at
AT = re.compile(r"(.+?) at (kl|flops) (\S+)")
VERSUS = re.compile(r"(?!cost flops over )(.+?(?: at (?:kl|flops) \S+)?) (minus|over) (.+)")
WIN = re.compile(r"win (against .+)")
EFFECT = re.compile(r"(.+?) effect against (.+)")


@dataclass(frozen=True)
class Versus:
    """One comparison, read back from its rows."""

    method: str
    metric: str
    ratio: bool
    baseline: str
    result: Result
    needed: float


def plain(metric: str) -> str:
    """The name of the metric itself, without the KL or FLOPs at which it was read."""
    at = AT.fullmatch(metric)
    return at[1] if at else metric


def bases(found: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(row.base for row in found))


def whole(found: Sequence[Result], base: str) -> dict[str, dict[str, Result]]:
    """Per method and metric the row over all its seeds, in the order of the file."""
    table: dict[str, dict[str, Result]] = {}
    for row in found:
        if row.base == base:
            table.setdefault(row.method, {})[row.metric] = row  # the row of all seeds stands after those of each
    return table


def versuses(table: Mapping[str, Mapping[str, Result]]) -> list[Versus]:
    """Every comparison of a base's rows, frontier points excluded."""
    found = []
    for method, row in table.items():
        for name, result in row.items():
            match = VERSUS.fullmatch(name)
            if match and not name.endswith(NEEDED):
                needed = row[name + NEEDED].mean if name + NEEDED in row else math.nan
                found.append(Versus(method, match[1], match[2] == "over", match[3], result, needed))
    return found


def wins(table: Mapping[str, Mapping[str, Result]]) -> dict[str, list[tuple[str, float, float, float]]]:
    """Per opponent and judge the shares of wins, ties and losses of each method."""
    found: dict[str, list[tuple[str, float, float, float]]] = {}
    for method, row in table.items():
        for name, result in row.items():
            match = WIN.fullmatch(name)
            if match:
                tie, lose = (row[f"{word} {match[1]}"].mean for word in ("tie", "lose"))
                found.setdefault(match[1], []).append((method, result.mean, tie, lose))
    return found


def effects_of(found: Sequence[Result], base: str) -> list[tuple[str, Versus]]:
    """(factor, comparison of two of its levels) of a crossed sweep, from its rows."""
    lines = []
    for r in found:
        match = EFFECT.fullmatch(r.metric)
        if match and r.base == base:
            factor, _, level = r.method.partition("=")
            lines.append((factor, Versus(level, match[1], False, match[2], r, math.nan)))
    return lines
