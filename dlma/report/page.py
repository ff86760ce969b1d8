"""The frame of every page: one file, no outside resource, the same bytes for the same data.

Text of models, users and configs is never trusted: the templates escape whatever is no `Markup`, answers are embedded
as JSON whose `<`, `>` and `&` are escapes, and the script shows them by textContent. The page's own policy (CSP)
allows exactly one script, by its hash.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from markupsafe import Markup

CONTENT_WARNING = (
    "Content warning: prompts and answers below may be harmful or offensive; they are shown for research. "
    "Answers that are harmful, or that nobody judged, stay blurred until you press them."
)
LAB_NOTE = (
    "The lab is a small artificial world with a made-up notion of harm. It shows when and why a method works "
    "there; it is not evidence about LLaMA-class models or about real harm."
)
INTERVALS = "Every interval is 95 %, two-sided."


@dataclass(frozen=True)
class Section:
    """A part of a page; `anchor` is what the navigation leads to."""

    anchor: str
    title: str
    body: Markup


@functools.cache
def _templates():
    import jinja2  # here, so that a command that makes no page does not wait for it

    loader = jinja2.PackageLoader("dlma.report")
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def part(template: str, macro: str, /, **values: object) -> Markup:
    """What a macro of a template makes of values."""
    return getattr(_templates().get_template(template).module, macro)(**values)


def page(
    sections: Sequence[Section],
    *,
    title: str,
    meta: str,
    headline: str,
    notices: Sequence[str],
    footer: str,
    answers: Mapping[str, object],
    warnings: Sequence[str] = (),
) -> bytes:
    """The page of these sections; sections without a body are left out, and `answers` is what report.js reads."""
    values = {"title": title, "meta": meta, "headline": headline, "notices": notices, "warnings": warnings}
    shown = [section for section in sections if section.body]
    return whole("page.html", ("page.js", "report.js"), answers, sections=shown, footer=footer, **values)


def whole(template: str, scripts: Sequence[str], data: object, /, **values: object) -> bytes:
    """A template as a page with its one script, of one file or several, and the data that the script reads.

    connect: what the script may ask, as the policy has it; nothing unless told
    """
    values = {"connect": "", **values}
    code = "".join(resources.files("dlma.report").joinpath(one).read_text(encoding="utf-8") for one in scripts)
    digest = "sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    found = _templates().get_template(template)
    return found.render(script=Markup(code), digest=digest, data=embed(data), **values).encode("utf-8", "replace")


def embed(value: object) -> Markup:
    """JSON that is safe inside a script element: it cannot close it, nor open a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
