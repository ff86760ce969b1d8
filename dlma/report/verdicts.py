"""Win, tie and lose of each judge: the rows of metrics.csv, the table in the terminal, the section of the report.

Shares are of all prompts, so that win, tie, lose and unparsed add up to 1; the win rate is (wins + ties / 2) over the
verdicts that could be parsed. A judge that shares its weights with the run's scorer is headed "self-reported".
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from rich.markup import escape as plain

from dlma.metrics.summary import Row
from dlma.records import EvalRow, Verdict
from dlma.report.terminal import WIDE, simple_table
from dlma.screen import Console
from dlma.statistics import intervals
from dlma.statistics.format import interval, number
from dlma.statistics.intervals import Estimate
from dlma.statistics.length_control import length_controlled

SELF_REPORTED = "self-reported"
OUTCOMES = ("win", "tie", "lose", "unparsed")
COLUMNS = {
    "win_rate": "win rate",
    **{name: name for name in OUTCOMES},
    "consistent": "same in both orders",
    "win_rate_lc": "win rate at equal length",
}
_HEADS = {"consistent": "consistent", "win_rate_lc": "at equal length"}
POINTS = {"win": 1.0, "tie": 0.5, "lose": 0.0}


@dataclass(frozen=True)
class Contest:
    """What one judge says of one arm against another; `found` has an estimate per column, where there is one."""

    judge: str
    criterion: str
    arm: str
    against: str
    self_reported: bool
    found: dict[str, Estimate]
    categories: dict[str, Estimate]

    @property
    def heading(self) -> str:
        return f"{self.judge} ({SELF_REPORTED})" if self.self_reported else self.judge

    def rows(self) -> list[Row]:
        """The contest as rows of the metrics: `win_rate/<judge>/<against>` and so on."""
        mark = f" ({SELF_REPORTED})" if self.self_reported else ""
        return [
            Row(
                f"{name}/{self.judge}/{self.against}",
                self.arm,
                estimate,
                "share",
                f"{COLUMNS[name]} against {self.against}, judge {self.judge}{mark}",
            )
            for name, estimate in self.found.items()
        ]


def contests(verdicts: Sequence[Verdict], judges: Mapping[str, dict], evals: Sequence[EvalRow]) -> list[Contest]:
    """Every judge's contests, in the order of the verdicts; `judges` holds each judge's notes by name."""
    lengths = {(row.arm, row.prompt_id): row.tokens for row in evals}
    groups: dict[tuple[str, str, str], list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault((verdict.judge, verdict.arm, verdict.against), []).append(verdict)
    return [
        Contest(
            judge=judge,
            criterion=judges[judge]["criterion"],
            arm=arm,
            against=against,
            self_reported=judges[judge]["self_reported"],
            found=_estimates(rows, lengths),
            categories=_by_category(rows),
        )
        for (judge, arm, against), rows in groups.items()
    ]


def independent_wins(found: Sequence[Contest]) -> dict[str, Estimate]:
    """The win rate of the aligned arm over the base, by each judge that shares no weights with the run's scorer."""
    return {
        f"{one.judge} ({one.criterion})": one.found["win_rate"]
        for one in found
        if (one.arm, one.against) == ("aligned", "base") and not one.self_reported and "win_rate" in one.found
    }


def _estimates(rows: Sequence[Verdict], lengths: Mapping[tuple[str, str], int]) -> dict[str, Estimate]:
    found = {name: intervals.share_interval([row.outcome == name for row in rows]) for name in OUTCOMES}
    parsed = [row for row in rows if row.outcome in POINTS]
    if not parsed:
        return found
    points = [POINTS[row.outcome] for row in parsed]
    found = {"win_rate": intervals.fraction_interval(points), **found}
    found["consistent"] = intervals.share_interval([row.shown_first == row.shown_second for row in parsed])
    ends = [(lengths.get((row.arm, row.prompt_id)), lengths.get((row.against, row.prompt_id))) for row in parsed]
    if all(None not in pair for pair in ends):
        controlled = length_controlled(points, [one - two for one, two in ends])
        found |= {} if controlled is None else {"win_rate_lc": controlled}
    return found


def _by_category(rows: Sequence[Verdict]) -> dict[str, Estimate]:
    """The win rate in each category; none where there is only one."""
    named = sorted((row for row in rows if row.category and row.outcome in POINTS), key=lambda row: row.category)
    found = {
        name: intervals.fraction_interval([POINTS[row.outcome] for row in group])
        for name, group in itertools.groupby(named, key=lambda row: row.category)
    }
    return found if len(found) > 1 else {}


def print_contests(found: Sequence[Contest], console: Console | None = None) -> None:
    """Two lines per judge and pair of arms; nothing where nobody judged."""
    if not found:
        return
    console = console or Console()
    controlled = [name for name in ("win_rate_lc",) if any(name in one.found for one in found)]
    more = ["consistent", *controlled] if console.width >= WIDE else []
    table = simple_table("verdicts on the same prompts, both orders")
    table.add_column("judge", overflow="fold")
    for name in ("win rate", "win / tie / lose", "unparsed", *(_HEADS[name] for name in more)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("n", justify="right", style="dim")
    for one in found:
        about = f"{plain(one.heading)}\n[dim]{plain(one.criterion)}, against {plain(one.against)}[/dim]"
        split = " / ".join(number(one.found[name].value, "share").removesuffix(" %") for name in OUTCOMES[:3])
        rest = [_rate(one.found.get(name)) for name in more]
        unparsed = number(one.found["unparsed"].value, "share")
        table.add_row(about, _rate(one.found.get("win_rate")), f"{split} %", unparsed, *rest, f"{_count(one):,}")
    console.print(table)
    console.print(
        "Shares of prompts; the win rate counts a tie as half and leaves out what was not parsed. "
        "95 % intervals over prompts, for this seed.",
        style="dim",
    )


def _rate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{number(estimate.value, 'share')}\n[dim]{plain(interval(estimate, 'share'))}[/dim]"


def _count(one: Contest) -> int:
    return one.found["win"].n


def section(found: Sequence[Contest]) -> str:
    """The report's section: a table of all contests with bars."""
    heads = "".join(f'<th class="num">{escape(text)}</th>' for text in COLUMNS.values())
    lines = "".join(
        f"<tr><td>{escape(one.heading)}<br><span class='unit'>{escape(one.criterion)}, {escape(one.arm)} against "
        f"{escape(one.against)}</span>{_bar(one)}</td>"
        f"{''.join(_cell(one.found.get(name)) for name in COLUMNS)}"
        f'<td class="num unit">{_count(one):,}</td></tr>'
        for one in found
    )
    return (
        '<p class="lead">The same prompts, the two answers shown in both orders; what wins in one order and loses in '
        "the other is a tie. Shares are of all prompts; the win rate counts a tie as half and leaves out verdicts "
        "that could not be parsed. At equal length: a logistic regression on the difference of lengths. A judge that "
        f"is also the scorer or the labeller is headed {SELF_REPORTED} and enters no test.</p>"
        f'<div class="scroll"><table><thead><tr><th>judge</th>{heads}<th class="num">n</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return '<td class="num">–</td>'
    value, bounds = number(estimate.value, "share"), interval(estimate, "share")
    return f'<td class="num"><b>{value}</b><br><span class="bounds">{bounds}</span></td>'


def _bar(one: Contest) -> str:
    """Win, tie and lose as one bar; what was not parsed is left blank."""
    parts, start = [], 0.0
    for name, css in (("win", "c-better"), ("tie", "c-tie"), ("lose", "c-worse")):
        share = 200 * one.found[name].value
        tip = escape(f"{name}: {number(one.found[name].value, 'share')}")
        parts.append(
            f'<rect class="bar {css}" x="{start:.2f}" y="0" width="{share:.2f}" height="8" data-tip="{tip}"></rect>'
        )
        start += share
    return f'<svg viewBox="0 0 200 8" width="200" height="8" role="img">{"".join(parts)}</svg>'
