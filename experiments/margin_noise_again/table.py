"""The tables of margin_noise_again: no margin and R shuffled against R, on labels of which a share is turned round.

python experiments/tables.py run margin_noise_again    # its commands, then these tables
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dlma.report import markdown
from dlma.report.result_text import MARGIN, cell, change, gap_text, p_text, same
from dlma.sweep import curves, estimates, readings
from dlma.sweep.results import Result, Settings, over_seeds
from dlma.sweep.settings import SHARED_ARMS, Setting, said

LEVEL, SUBJECT = 0.5, "dlma"
NAMES = {"rlcd": "no margin", "dlma": "R", "dlma_shuffled": "R shuffled"}
PRIMARY = ("0.2", "0.35")  # shares of turned labels whose comparisons are one family; the others are another
SHOWN = {
    "kl": "KL, nats", "harmful": "answers with harm", "malformed": "malformed", "perplexity": "perplexity",
}  # fmt: skip


def named(row: Setting) -> Setting:
    """A row with its share of turned labels and its learning rate as its settings."""
    if row.arm in SHARED_ARMS:
        return replace(row, settings=(), overrides={})
    told = {
        leaf: f"{float(said(row, key) or 'nan'):g}" for leaf, key in (("flips", "labels.flips"), ("lr", "recipe.lr"))
    }
    return replace(row, settings=tuple(told.items()), overrides=told)


def results(settings: Sequence[Setting]) -> list[Result]:
    """The settings' own values, harm at the level, and each row less R at its share, by the plan's two families."""
    rows = [named(row) for row in settings]
    ends = [one for one in over_seeds(estimates.results(rows, tested=[])) if one.statistic == "mean"]
    drawn = curves.along_kl(rows, ["lr"])
    along = [one for one in readings.results(drawn, "harmful", None, [LEVEL]) if one.metric == "harmful"]
    read = readings.reads(drawn, [LEVEL], "harmful", own=True)
    pairs = [(one, other) for one in read.values() if (other := readings.held_against(one, read, drawn, SUBJECT))]
    compared = [
        [both for both in pairs if (dict(both[0].curve.choices)["flips"] in PRIMARY) == first]
        for first in (True, False)
    ]
    tested = [one for family in compared for one in readings.differences(family)]
    return [*(one for one in ends if one.metric in SHOWN), *along, *tested]


def share_of(settings: Settings) -> float:
    """The share of labels that a row has turned round."""
    return float(dict(settings)["flips"])


def render(found: Sequence[Result]) -> str:
    return "\n\n".join([_read(found), _differences(found), _ends(found)])


def _read(found: Sequence[Result]) -> str:
    told = [one for one in found if (one.axis, one.statistic) == ("kl", "mean")]
    values = {(one.method, share_of(one.settings)): one for one in told}
    shares = sorted({share for _, share in values})
    rows = [[name, *(cell(values.get((method, share))) for share in shares)] for method, name in NAMES.items()]
    head = f"Answers with a harmful sentence at {LEVEL:g} nats, by the share of labels that were turned round:\n\n"
    return head + markdown.table(["margin", *(f"{100 * share:g} %" for share in shares)], rows)


def _differences(found: Sequence[Result]) -> str:
    gaps = {(one.method, share_of(one.settings)): one for one in found if one.statistic == "gap"}
    rows = []
    for one in found:
        if one.statistic == "difference":
            share = share_of(one.settings)
            both = [gaps.get((method, share)) for method in (one.method, SUBJECT)]
            told = [change(one), p_text(one.p_holm), same(one, MARGIN, both), *map(gap_text, both)]
            rows.append([NAMES[one.method], f"{100 * share:g} %", *told])
    head = (
        f"The same less that of R, at {LEVEL:g} nats (above 0: R does less harm); p by Holm over 20 and 35 %, and over "
        "the other share for itself. The seeds' variance is pooled over the two comparisons of a share:\n\n"
    )
    heads = [
        "margin",
        "labels turned",
        "difference",
        "p",
        f"within {100 * MARGIN:g} points",
        "read over, nats",
        "R over",
    ]
    return head + markdown.table(heads, rows)


def _ends(found: Sequence[Result]) -> str:
    means = {(one.row, one.metric): one for one in found if one.statistic == "mean" and not one.axis}
    rows = []
    for method, settings, arm in dict.fromkeys(row for row, _ in means):
        own = dict(settings)
        name = arm if arm in SHARED_ARMS else f"{NAMES[method]}, lr={own['lr']}"
        share = "–" if arm in SHARED_ARMS else f"{100 * share_of(settings):g} %"
        rows.append([name, share, *(cell(means.get(((method, settings, arm), metric))) for metric in SHOWN)])
    return "Where every training ended:\n\n" + markdown.table(["row", "labels turned", *SHOWN.values()], rows)
