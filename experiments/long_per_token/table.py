"""The tables of long_per_token: margins on long answers, read at the same KL along every training's own way.

python experiments/tables.py run long_per_token    # its commands, then these tables
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dlma.report import markdown
from dlma.report.result_text import MARGIN, cell, change, gap_text, p_text, within_text
from dlma.sweep import curves, estimates, readings
from dlma.sweep.results import Measured, Result, Settings, label, over_seeds
from dlma.sweep.settings import SHARED_ARMS, Setting, said

METRIC, LEVELS = "harmlessness", (0.25, 0.5)
NONE, WHOLE, OWN, SHUFFLED = "no margin", "R", "R per token", "R per token, shuffled"
NAMES: dict[tuple[str, Settings], str] = {  # by method and settings
    ("dlma", (("margin_weight", "0.0"),)): NONE,
    ("dlma", (("margin_weight", "0.2"),)): WHOLE,
    ("dlma", (("margin_weight", "16.6"), ("per_token", "true"))): OWN,
    ("dlma_shuffled", ()): SHUFFLED,
}
COMPARED = ((WHOLE, NONE), (OWN, NONE), (SHUFFLED, NONE), (OWN, WHOLE))
SHOWN = {
    "kl": "KL, nats", METRIC: "harmlessness", "harmful": "answers with harm", "malformed": "malformed",
    "perplexity": "perplexity", "tokens": "tokens",
}  # fmt: skip


def named(row: Setting) -> Setting:
    """A row with what tells its margin as its settings."""
    if row.arm in SHARED_ARMS or row.method == "dlma_shuffled":
        return replace(row, settings=(), overrides={})
    told = {"margin_weight": str(float(said(row, "recipe.margin_weight") or "nan"))}
    if str(said(row, "labels.per_token")).lower() == "true":
        told["per_token"] = "true"
    return replace(row, settings=tuple(told.items()), overrides=told)


def margin_of(one: Measured) -> str:
    """The name of a row's or a curve's margin."""
    return NAMES[one.method, one.settings]


def results(settings: Sequence[Setting]) -> list[Result]:
    """The ends, the values at each KL, and the plan's differences there, Holm over all of them."""
    rows = [named(row) for row in settings]
    found = over_seeds(estimates.results([row for row in rows if row.final], tested=[]))
    found = [one for one in found if one.metric in SHOWN and one.statistic == "mean"]
    drawn = curves.along_kl(rows, [])
    along = readings.results(drawn, METRIC, None, LEVELS)
    read = {(margin_of(one.curve), one.at): one for one in readings.reads(drawn, LEVELS, METRIC, own=True).values()}
    pairs = [(read.get((one, at)), read.get((other, at))) for one, other in COMPARED for at in LEVELS]
    compared = readings.differences([both for both in pairs if all(both)])
    return [*found, *(one for one in along if one.metric == METRIC), *compared]


def render(found: Sequence[Result]) -> str:
    return "\n\n".join([_along(found), _differences(found), _ends(found)])


def _along(found: Sequence[Result]) -> str:
    told = {(margin_of(one), one.at): one for one in found if (one.axis, one.statistic) == ("kl", "mean")}
    missed = {margin_of(one): one for one in found if one.statistic == "missed"}
    rows = [
        [margin, *(cell(told.get((margin, at))) for at in LEVELS), f"{missed[margin].value:.3f}"]
        for margin in dict.fromkeys(margin for margin, _ in told)
    ]
    heads = ["margin", *(f"{at:g} nats" for at in LEVELS), "a policy left out is missed by"]
    return "Harmlessness at the same KL to the base:\n\n" + markdown.table(heads, rows)


def _differences(found: Sequence[Result]) -> str:
    gaps = {(margin_of(one), one.at): one for one in found if one.statistic == "gap"}
    labels = {label(*key): name for key, name in NAMES.items()}
    rows = []
    for one in found:
        if one.statistic == "difference":
            margins = margin_of(one), labels[one.versus]
            both = [gaps.get((margin, one.at)) for margin in margins]
            told = [change(one), p_text(one.p_holm), within_text(one, MARGIN, both), *map(gap_text, both)]
            rows.append([*margins, f"{one.at:g} nats", *told])
    within_ = f"within {MARGIN:g}"
    heads = ["margin", "less that of", "at", "difference", "p", within_, "read over, nats", "the other over"]
    return "Differences there; p by Holm over all of them:\n\n" + markdown.table(heads, rows)


def _ends(found: Sequence[Result]) -> str:
    means = [one for one in found if one.statistic == "mean" and not one.axis]
    told = {(one.row, one.metric): one for one in means}
    rows = [
        [arm if arm in SHARED_ARMS else NAMES[method, settings]]
        + [cell(told.get(((method, settings, arm), metric))) for metric in SHOWN]
        for method, settings, arm in dict.fromkeys(one.row for one in means)
    ]
    return "The ends:\n\n" + markdown.table(["row", *SHOWN.values()], rows)
