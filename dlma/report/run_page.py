"""The HTML report: one file, no outside resource, the same bytes for the same data.

Text of models, users and configs is never trusted: static parts go through `html.escape`, answers are embedded
as JSON whose `<`, `>` and `&` are escapes, and the script shows them by textContent. The page's own policy
(CSP) allows exactly one script, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path

from dlma import files
from dlma.checks import finding as findings
from dlma.checks.finding import Finding
from dlma.checks.margin_facts import margin_truth
from dlma.metrics.summary import Row, arms_of
from dlma.records import Account, EvalRow, ScoredPair
from dlma.report import categories, rounds, scores, verdicts
from dlma.report import sections as page_sections
from dlma.report.categories import CategoryRow
from dlma.report.rounds import RoundDrift
from dlma.report.verdicts import Contest

MAX_PROMPTS = 2000
ARM_LABELS = {"base": "base", "prompted": "base with p+", "aligned": "aligned"}
CONTENT_WARNING = (
    "Content warning: prompts and answers below may be harmful or offensive; they are shown for research. "
    "Answers that are harmful, or that nobody judged, stay blurred until you press them."
)
LAB_NOTE = (
    "The lab is a small artificial world with a made-up notion of harm. It shows when and why a method works "
    "there; it is not evidence about LLaMA-class models or about real harm."
)


@dataclass(frozen=True)
class StageLine:
    """A line of the stage list; `status` is "run" or "reused"."""

    name: str
    key: str
    status: str


@dataclass(frozen=True)
class ReportData:
    """All that the report shows. `truth` has one item per pair; `config` comes redacted.

    along, tokens: sections as HTML, empty where there is nothing to show
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
    along: str = ""
    tokens: str = ""
    contests: list[Contest] = field(default_factory=list)
    tax: list[Row] = field(default_factory=list)
    categories: list[CategoryRow] = field(default_factory=list)
    is_lab: bool = False


def write_report(path: Path, data: ReportData) -> None:
    """Writes the report in one step; a reader never sees half of it."""
    files.write_bytes(path, render(data))


def render(data: ReportData) -> bytes:
    """The page. Slots are filled in one pass, so that no text can pose as a slot."""
    sections = [section for section in _sections(data) if section is not None]
    slots = {
        "TITLE": escape(data.title),
        "META": escape(f"method {data.method} · model {data.model} · seed {data.seed}"),
        "HEADLINE": escape(page_sections.headline(data.rows)),
        "CALLOUTS": _callouts(data),
        "FOOTER": escape(LAB_NOTE if data.is_lab else "Every interval is 95 %, two-sided."),
        "ANSWERS": embed(_answers(data.evals, arms_of(data.rows))),
    }
    return page(slots, sections)


def page(slots: dict[str, str], sections: Sequence[tuple[str, str, str]]) -> bytes:
    """The template with its slots (HTML) and sections (anchor, title, HTML) filled in."""
    script = _asset("report.js")
    filled = slots | {
        "NAV": "".join(f'<a href="#{name}">{title}</a>' for name, title, _ in sections),
        "SECTIONS": "\n".join(
            f'<section id="{name}"><h2>{title}</h2>{body}</section>' for name, title, body in sections
        ),
        "SCRIPT": script,
        "SCRIPT_HASH": "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    text = re.sub(r"@@([A-Z_]+)@@", lambda match: filled[match[1]], _asset("report.html"))
    return text.encode("utf-8", "replace")


def _asset(name: str) -> str:
    return resources.files("dlma.report").joinpath(name).read_text(encoding="utf-8")


def embed(value: object) -> str:
    """JSON that is safe inside a script element: it cannot close it, nor open a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _callouts(data: ReportData) -> str:
    lines = [CONTENT_WARNING, LAB_NOTE] if data.is_lab else [CONTENT_WARNING]
    parts = ['<div class="callout">', *(f"<p>{escape(line)}</p>" for line in lines), "</div>"]
    if data.warnings:
        items = "".join(f"<li>{escape(line)}</li>" for line in data.warnings)
        parts.append(f'<div class="callout alert"><b>To look at before believing this run</b><ul>{items}</ul></div>')
    return "".join(parts)


def _sections(data: ReportData) -> list[tuple[str, str, str] | None]:
    """(anchor, title, HTML) of each section that has something to show, in reading order."""
    clamp_low, clamp_high = data.clamp
    margins = [pair.margin for pair in data.pairs]
    truth, against = margin_truth(data.pairs, data.truth)
    return [
        ("summary", "Summary", page_sections.summary(data.rows, data.cannot, ARM_LABELS)),
        ("verdicts", "Win, tie, lose", verdicts.section(data.contests)) if data.contests else None,
        ("tax", "Alignment tax", scores.tax_section(data.tax)) if data.tax else None,
        ("categories", "By category", categories.section(data.categories)) if data.categories else None,
        ("training", "Training", page_sections.training(data.train)) if data.train else None,
        ("along", "Along training", data.along) if data.along else None,
        ("margins", "Self-reward", page_sections.margins(margins, truth, clamp_low, clamp_high, against))
        if margins
        else None,
        ("tokens", "R token by token", data.tokens) if data.tokens else None,
        ("rounds", "Rounds", rounds.panel(data.rounds)) if data.rounds else None,
        ("answers", "Answers", page_sections.answers(data.evals, MAX_PROMPTS)) if data.evals else None,
        ("checks", "Checks", findings.table(data.checks)) if data.checks else None,
        ("rows", "Rows read", page_sections.accounts(data.accounts)) if data.accounts else None,
        ("settings", "Settings", page_sections.settings(data.config)) if data.config else None,
        ("stages", "Stages", page_sections.stages(data.stages)) if data.stages else None,
    ]


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
