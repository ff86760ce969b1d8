"""What a check found, and how findings are said: in the terminal, and as numbers for a tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.markup import escape as plain

from dlma.screen import Console

State = Literal["ok", "warning", "stop", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One check: its name, what came of it, and a line with the figure and the threshold (or why there is none)."""

    name: str
    state: State
    text: str

    @property
    def line(self) -> str:
        return f"{self.name}: {self.text}"


def warnings(found: Sequence[Finding]) -> list[str]:
    """The lines of what has to be looked at."""
    return [one.line for one in found if one.state in ("warning", "stop")]


def unknown(found: Sequence[Finding]) -> list[str]:
    """One line per reason for which something could not be checked."""
    reasons: dict[str, list[str]] = {}
    for one in found:
        if one.state == "unknown":
            reasons.setdefault(one.text, []).append(one.name)
    return [f"not checked: {', '.join(names)} ({reason})" for reason, names in reasons.items()]


def numbers(groups: Mapping[str, Sequence[Finding]]) -> dict[str, float]:
    """1 for what fired and 0 for what did not, as group/name; what could not be checked has no number."""
    return {
        f"{group}/{one.name}": float(one.state != "ok")
        for group, found in groups.items()
        for one in found
        if one.state != "unknown"
    }


def print_findings(title: str, found: Sequence[Finding], console: Console | None = None) -> None:
    """The warnings, then what could not be checked; one line where all is in order. All text is escaped."""
    console = console or Console(soft_wrap=True)
    fired, open_ones = warnings(found), unknown(found)
    known = sum(one.state != "unknown" for one in found)
    style = "bold yellow" if fired else "dim"
    console.print(f"{plain(title)}: {known} checked, {len(fired)} to look at", style=style)
    for line in fired:
        console.print(plain(f"  {line}"), style="yellow", highlight=False)
    for line in open_ones:
        console.print(plain(f"  {line}"), style="dim", highlight=False)
