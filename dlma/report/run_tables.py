"""The tables of a run, for its page and for the terminal: what was measured, checked, read, and made of what."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from dlma.checks.drift import RoundDrift
from dlma.checks.finding import Finding
from dlma.checks.token_panel import Echo, Link
from dlma.checks.trajectory import Trajectory
from dlma.evaluation import target_kl
from dlma.metrics.categories import CategoryRow
from dlma.metrics.contests import OUTCOMES, Contest
from dlma.metrics.scores import tax_lines
from dlma.metrics.summary import Row, arms_of, arrow, label
from dlma.records import Account
from dlma.report.charts import run as charts
from dlma.report.table import Cell, Column, Table, Text, Value, measure, small
from dlma.statistics.format import bounded, number

if TYPE_CHECKING:
    from dlma.report.run_page import StageLine

ARM_LABELS = {"base": "base", "prompted": "base with p+", "aligned": "aligned"}
N = Column("n", "count")
STATES = {"ok": "in order", "warning": "look at it", "stop": "stops the run", "unknown": "cannot be checked"}
SIDES = {"win": "better", "tie": "tie", "lose": "worse"}  # the colours of outcomes
ALONG = {
    "self_reward": "R, nats",
    "harmlessness": "harmlessness",
    "harmful": "harmful",
    "sentiment": "sentiment",
    "kl": "KL, nats",
    "perplexity": "perplexity",
    "tokens": "length",
}


def counts(numbers: Iterable[int]) -> str:
    """One number, or the smallest and the largest."""
    distinct = sorted(set(numbers))
    return f"{distinct[0]:,}" if len(distinct) == 1 else f"{distinct[0]:,}–{distinct[-1]:,}"


def summary(rows: Sequence[Row], title: str, notes: Sequence[str]) -> Table:
    """Arms as columns, metrics as lines, and a dot with a whisker per arm."""
    arms = arms_of(rows)
    columns = [Column(ARM_LABELS.get(arm, arm), "value", key=f"k-{arm}") for arm in arms]
    lines = [_metric(list(group), arms) for _, group in itertools.groupby(rows, lambda row: row.metric)]
    return Table(title, [Column("metric"), *columns, Column("", "chart"), N], lines, notes)


def _metric(group: list[Row], arms: Sequence[str]) -> list[Cell]:
    found, first = {row.arm: row for row in group}, group[0]
    name = Text(label(first.metric, first) + arrow(first.metric, first), unit=small(first.unit))
    values = [Value(found[arm].estimate, found[arm].unit) if arm in found else None for arm in arms]
    dots = [
        (f"c-{r.arm}" if r.arm in ARM_LABELS else "c-other", r.estimate, f"{r.arm}: {bounded(r.estimate, r.unit)}")
        for r in group
    ]
    return [name, *values, Text("", chart=charts.forest(dots)), counts(row.estimate.n for row in group)]


def contests(found: Sequence[Contest], shown: Mapping[str, str], title: str = "", notes: Sequence[str] = ()) -> Table:
    """A line per judge and pair of arms; shown: names and heads, of which "split" is win, tie and lose in one cell."""
    lines = [[_contest(one), *(_share(one, name) for name in shown), one.found["win"].n] for one in found]
    columns = [Column(head, "value") for head in shown.values()]
    return Table(title, [Column("judge"), *columns, N], lines, notes)


def _contest(one: Contest) -> Text:
    parts = [(f"c-{css}", one.found[name].value, f"{name}: {_percent(one, name)}") for name, css in SIDES.items()]
    return Text(one.heading, below=[f"{one.criterion}, {one.arm} against {one.against}"], chart=charts.shares(parts))


def _share(one: Contest, name: str) -> Cell:
    if name == "split":
        return " / ".join(_percent(one, outcome).removesuffix(" %") for outcome in OUTCOMES[:3]) + " %"
    return measure(one.found.get(name), "share")


def _percent(one: Contest, name: str) -> str:
    return number(one.found[name].value, "share")


def tax(rows: Sequence[Row], title: str = "") -> Table:
    """What alignment cost, skill by skill."""
    lines: list[list[Cell]] = [
        [Text(each[0].label, unit=small(each[2].unit)), *(Value(r.estimate, r.unit) for r in each), each[2].estimate.n]
        for each in tax_lines(rows)
    ]
    heads = [Column("skill"), *(Column(name, "value") for name in ("base", "aligned", "change")), N]
    return Table(title, heads, lines)


def categories(rows: Sequence[CategoryRow]) -> Table:
    """A line per category, a column per metric and arm."""
    columns = {(row.metric, row.arm): Column(row.label, "value", below=row.arm) for row in rows}
    cells = {(row.category, row.metric, row.arm): Value(row.estimate, row.unit, counted=True) for row in rows}
    names = sorted({row.category for row in rows})
    lines = [[name, *(cells.get((name, *key)) for key in columns)] for name in names]
    return Table("", [Column("category"), *columns.values()], lines)


def agreements(rows: Sequence[CategoryRow]) -> Table:
    """A line per category, a column per signal, by its name alone: there are many of both."""
    found = {(row.category, row.metric.removeprefix("agreement/")): row.estimate for row in rows}
    signals = list(dict.fromkeys(signal for _, signal in found))
    lines: list[list[Cell]] = [
        [name, *(Value(found[name, one], "share") if (name, one) in found else None for one in signals)]
        for name in sorted({name for name, _ in found})
    ]
    return Table("agreement by category", [Column("category"), *(Column(one, "value") for one in signals)], lines)


def trajectory(found: Trajectory) -> Table:
    """The steps of a run, and what was measured at each of them."""
    points = found.points
    heads = ALONG | {name: name.replace("win_rate/", "win rate by ") for name in found.judges}
    names = [name for name in heads if all(name in point for point in points)]
    columns = [Column("step", "count"), *(Column(heads[name], "value") for name in names)]
    cells = [[Value(point[name].estimate, point[name].unit) for name in names] for point in points]
    return Table("", columns, [[step, *line] for step, line in zip(found.steps, cells)])


def stopped(chosen: Mapping) -> Table:
    """KL at the steps that were looked at, and which of them was taken."""
    curve = target_kl.curve_of(chosen)
    columns = [Column("step", "count"), Column("KL, nats per answer", "value"), N, Column("")]
    lines: list[list[Cell]] = [
        [step, Value(kl, ""), kl.n, "taken" if step == chosen["step"] else ""] for step, kl in curve.items()
    ]
    return Table("", columns, lines)


def drift(rounds: Sequence[RoundDrift]) -> Table:
    """R of every round by the round's model and by the base."""
    columns = [Column(field.name.replace("_", " "), "count") for field in dataclasses.fields(RoundDrift)]
    return Table("", columns, [list(map(_plain, dataclasses.astuple(one))) for one in rounds])


def _plain(value: float | None) -> Cell:
    return number(value, "") if isinstance(value, float) else value


def echo(found: Echo) -> Table:
    """What the echoes of the affix make of R."""
    lines: list[Sequence[Cell]] = [
        ("tokens whose word stands in the affix", measure(found.tokens, "share"), ""),
        ("their share of the sum of |r(t)|", measure(found.share, "share"), ""),
        ("mean R, nats, with and without them", found.mean, found.mean_without),
        ("pairs whose R changes sign without them", measure(found.flipped, "share"), ""),
        ("sign(R) right, no ties", measure(found.sign, "share"), measure(found.sign_without, "share")),
        ("rank correlation of R with the truth", found.rank, found.rank_without),
    ]
    words = ", ".join(f"{word} {size:.1f}" for word, size in found.words) or "none"
    columns = [Column(""), Column("as it is", "value"), Column("without echoes", "value")]
    notes = [f"Echoed words, by their sum of |r(t)| in nats: {words}."]
    return Table("", columns, [line for line in lines if line[1] is not None], notes)


def links(found: Sequence[Link], source: str) -> Table:
    """What R goes with."""
    columns = [Column(""), Column("with R", "value"), Column("with R per token", "value")]
    note = (
        "Rank correlations of the differences within a pair, over all pairs; with R per token, the other properties "
        "are held fixed. A dash: it does not vary here. Sentiment counts the words of a list"
    )
    return Table("", columns, [[one.name, one.whole, one.partial] for one in found], [f"{note} ({source})."])


def findings(groups: Mapping[str, Sequence[Finding]]) -> Table:
    """All checks, those that found nothing included."""
    lines: list[list[Cell]] = [
        [group, one.name.replace("_", " "), _state(one), one.text] for group, found in groups.items() for one in found
    ]
    return Table("", [Column("when"), Column("check"), Column(""), Column("figure")], lines)


def _state(one: Finding) -> Text:
    text = STATES[one.state]
    return Text(text, badge="bad") if one.state in ("warning", "stop") else Text("", unit=text)


def accounts(found: Mapping[str, Account]) -> Table:
    """Rows read and kept of every input, and what became of the others."""
    columns = [Column("input"), Column("read", "value"), Column("kept", "value"), Column("why not all")]
    return Table("", columns, [[name, one.read, one.kept, _lost(one)] for name, one in found.items()])


def _lost(account: Account) -> str:
    lines = [f"dropped, {reason}: {count:,}" for reason, count in sorted(account.dropped.items())]
    lines += [f"trimmed, {reason}: {count:,}" for reason, count in sorted(account.trimmed.items())]
    return "\n".join(lines) or "nothing dropped or trimmed"


def stages(found: Sequence[StageLine]) -> Table:
    """The stages, and whether they were run this time."""
    columns = [Column("stage"), Column("key", "code"), Column("this time")]
    return Table("", columns, [[one.name, one.key, one.status] for one in found])
