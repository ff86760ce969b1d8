"""The page on which people compare answers, and the reader of the file that it gives back.

One file, no outside resource; texts are data that the script shows by textContent, under a policy (CSP) that allows
exactly that script. Nothing in the page says which side is whose: that is worked out again from the run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlma.errors import UserError
from dlma.records import content_id
from dlma.report.page import whole

FORMAT = "dlma-annotation-1"
VERDICTS = ("left", "tie", "right")
WARNING = (
    "Content warning: the questions and answers may be harmful, offensive or upsetting. They are shown for research "
    "and stay blurred until you press them. Stop whenever you want to; what you said so far is kept."
)


@dataclass(frozen=True)
class Blind:
    """A question with two answers, whoever wrote them."""

    id: str
    question: str
    left: str
    right: str


@dataclass(frozen=True)
class PersonVerdicts:
    """One person's verdicts, "left", "tie" or "right", by the pair's id."""

    annotator: str
    verdicts: dict[str, str]


def page_id(items: Sequence[Blind]) -> str:
    """The same for the same pairs in the same order on the same sides, whatever is asked about them."""
    return content_id(*(part for item in items for part in (item.id, item.question, item.left, item.right)))


def render(items: Sequence[Blind], ask: str) -> bytes:
    """The page."""
    data = {"format": FORMAT, "page": page_id(items), "ask": ask, "items": [vars(item) for item in items]}
    return whole("annotate.html", ("annotate.js",), data, warning=WARNING)


def read_labels(paths: Sequence[Path], items: Sequence[Blind]) -> list[PersonVerdicts]:
    """The files that people downloaded; raises UserError for one of another page, a damaged one, or a name twice."""
    found = [_read(path, items) for path in paths]
    names = [one.annotator for one in found]
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise UserError(f"{path}: the annotator {name!r} stands in two files; give each person once")
    return found


def _read(path: Path, items: Sequence[Blind]) -> PersonVerdicts:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as reason:
        raise UserError(f"mode.labels: {path}: {reason.strerror}") from None
    except ValueError:
        raise UserError(f"mode.labels: {path}: not JSON: download it from the page again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"mode.labels: {path}: not a file of the annotation page ({FORMAT})")
    if content.get("page") != page_id(items):
        raise UserError(
            f"mode.labels: {path}: made on another page; give the run, arms, mode.pairs and mode.seed of that page"
        )
    name, verdicts = content.get("annotator"), content.get("labels")
    known = {item.id for item in items}
    if not isinstance(name, str) or not isinstance(verdicts, dict) or not verdicts:
        raise UserError(f"mode.labels: {path}: holds no annotator's labels")
    for key, verdict in verdicts.items():
        if key not in known or verdict not in VERDICTS:
            raise UserError(f"mode.labels: {path}: the label {key!r}: {verdict!r} is none of the page's")
    return PersonVerdicts(name, verdicts)
