"""The page of a run: what it shows, section by section, and the answers that its script filters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from dlma import files
from dlma.checks.drift import RoundDrift
from dlma.checks.finding import Finding
from dlma.checks.margin_facts import is_judged, margin_truth
from dlma.metrics.categories import CategoryRow
from dlma.metrics.contests import COLUMNS, SELF_REPORTED, Contest
from dlma.metrics.summary import Row, arms_of
from dlma.records import Account, EvalRow, ScoredPair
from dlma.report import run_tables, sections
from dlma.report.page import CONTENT_WARNING, INTERVALS, LAB_NOTE, Section, page, part
from dlma.report.run_tables import ARM_LABELS
from dlma.report.table import Table, html

MAX_PROMPTS = 2000


@dataclass(frozen=True)
class StageLine:
    """A line of the stage list; `status` is "run" or "reused"."""

    name: str
    key: str
    status: str


@dataclass(frozen=True)
class ReportData:
    """All that the report shows. `truth` has one item per pair; `config` comes redacted.

    along, tokens: sections, empty where there is nothing to show
    """

    method: str
    model: str
    seed: int
    title: str
    rows: list[Row]
    evals: list[EvalRow]
    cannot: list[str] = field(default_factory=list)
    train: list[dict] = field(default_factory=list)
    pairs: list[ScoredPair] = field(default_factory=list)
    truth: list[float | None] = field(default_factory=list)
    rounds: list[RoundDrift] = field(default_factory=list)
    clamp: tuple[float | None, float | None] = (None, None)
    accounts: dict[str, Account] = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    stages: list[StageLine] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    checks: dict[str, list[Finding]] = field(default_factory=dict)
    along: Markup = field(default_factory=Markup)
    tokens: Markup = field(default_factory=Markup)
    contests: list[Contest] = field(default_factory=list)
    tax: list[Row] = field(default_factory=list)
    categories: list[CategoryRow] = field(default_factory=list)
    is_lab: bool = False


def write_report(path: Path, data: ReportData) -> None:
    """Writes the report in one step; a reader never sees half of it."""
    files.write_bytes(path, render(data))


def render(data: ReportData) -> bytes:
    """The page."""
    return page(
        _sections(data),
        title=data.title,
        meta=f"method {data.method} · model {data.model} · seed {data.seed}",
        headline=sections.headline(data.rows),
        notices=[CONTENT_WARNING, LAB_NOTE] if data.is_lab else [CONTENT_WARNING],
        warnings=data.warnings,
        footer=LAB_NOTE if data.is_lab else INTERVALS,
        answers=_answers(data.evals, arms_of(data.rows)),
    )


def _margins(data: ReportData) -> Markup:
    values, symbol = [pair.margin for pair in data.pairs], "the margin" if is_judged(data.pairs) else "R"
    truth, against = margin_truth(data.pairs, data.truth)
    return sections.margins(values, truth, *data.clamp, against, symbol)


def _sections(data: ReportData) -> list[Section]:
    """In reading order, with an empty body where there is nothing to show."""
    nothing = Markup("")
    parts = [
        ("summary", "Summary", _macro("summary", lambda rows: run_tables.summary(rows, "", data.cannot), data.rows)),
        ("verdicts", "Win, tie, lose", _contests(data) if data.contests else nothing),
        ("tax", "Alignment tax", _macro("tax", run_tables.tax, data.tax)),
        (
            "categories",
            "By category",
            _macro("categories", run_tables.categories, data.categories),
        ),
        ("training", "Training", sections.training(data.train) if data.train else nothing),
        ("along", "Along training", data.along),
        ("margins", "Margins" if is_judged(data.pairs) else "Self-reward", _margins(data) if data.pairs else nothing),
        ("tokens", "R token by token", data.tokens),
        ("rounds", "Rounds", sections.rounds(data.rounds) if data.rounds else nothing),
        ("answers", "Answers", sections.answers(data.evals, MAX_PROMPTS) if data.evals else nothing),
        ("checks", "Checks", _macro("findings", run_tables.findings, data.checks)),
        ("rows", "Rows read", html(run_tables.accounts(data.accounts)) if data.accounts else nothing),
        ("settings", "Settings", sections.settings(data.config) if data.config else nothing),
        ("stages", "Stages", html(run_tables.stages(data.stages)) if data.stages else nothing),
    ]
    return [Section(*one) for one in parts]


def _macro(name: str, table: Callable[..., Table], found: Sized) -> Markup:
    """A section that is a sentence and a table of what was found, if anything was."""
    return part("run.html", name, table=html(table(found), stacked=name == "categories")) if found else Markup("")


def _contests(data: ReportData) -> Markup:
    table = html(run_tables.contests(data.contests, COLUMNS), stacked=True)
    return part("run.html", "contests", table=table, self_reported=SELF_REPORTED)


def _answers(evals: Sequence[EvalRow], arms: list[str]) -> dict:
    """What the script filters and shows: one entry per prompt, with the first answer of each arm."""
    found: dict[str, dict] = {}
    for row in evals:
        entry = found.setdefault(row.prompt_id, {"question": row.question, "category": row.category, "a": {}})
        entry["a"].setdefault(row.arm, answer(row))
    return {
        "arms": arms or list(dict.fromkeys(row.arm for row in evals)) or ["base"],
        "labels": ARM_LABELS,
        "css": {arm: f"c-{arm}" for arm in ARM_LABELS},
        "judged": any(row.harmful is not None for row in evals),
        "rows": list(itertools.islice(found.values(), MAX_PROMPTS)),
    }


def answer(row: EvalRow) -> dict:
    """An answer as report.js reads it."""
    malformed = row.malformed if row.malformed is not None and math.isfinite(row.malformed) else None
    return {
        "text": row.answer,
        "harmful": row.harmful,
        "malformed": malformed,
        "tokens": row.tokens,
        "finished": row.finished,
    }
