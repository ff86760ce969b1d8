"""Win, tie and lose of each judge: what the tables show of them, and the rows of metrics.csv.

Shares are of all prompts, so that win, tie, lose and unparsed add up to 1; the win rate is (wins + ties / 2) over the
verdicts that could be parsed. A judge that shares its weights with the run's scorer is headed "self-reported".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlma.metrics.summary import Row
from dlma.records import POINTS, EvalRow, Verdict
from dlma.statistics import intervals
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
    longer = [one - two for one, two in ends if one is not None and two is not None]
    if len(longer) == len(ends):
        controlled = length_controlled(points, longer)
        found |= {} if controlled is None else {"win_rate_lc": controlled}
    return found


def _by_category(rows: Sequence[Verdict]) -> dict[str, Estimate]:
    """The win rate in each category; none where there is only one."""
    points: dict[str, list[float]] = {}
    for row in rows:
        if row.category and row.outcome in POINTS:
            points.setdefault(row.category, []).append(POINTS[row.outcome])
    found = {name: intervals.fraction_interval(points[name]) for name in sorted(points)}
    return found if len(found) > 1 else {}
