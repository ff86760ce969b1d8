"""What the cards of lab bases say, as results beside those of the runs on them: how often each labeller was right."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from dlma.lab.bases import base_folder, presets
from dlma.report import markdown
from dlma.report.result_text import cell
from dlma.statistics.format import number
from dlma.sweep.results import Result
from dlma.sweep.settings import Setting

CARD = "base card"  # the method of these results: what the base was measured to be, before any training
RIGHT = {
    "construction_right": "construction right",
    "sign_R_right": "sign of R right",
    "judge_right": "judge right",
}
DIALS = ("dial_obedience", "dial_judge")  # of a base that was made for an experiment, as its builder was told


def results(row: Setting) -> list[Result]:
    """From the card of a row's base: how often each labeller was right, ties in the truth left out.

    Raises UserError where the base is not at hand.
    """
    name = row.base.removeprefix("lab-")
    card = json.loads((base_folder(name) / "card.json").read_text())
    figures, n = card["figures"], card["figures"]["prompts"]
    right = [figures["construction"], figures["sign_R"], figures["judge"]["both_orders"]]
    values = dict(zip(RIGHT, (one["without_ties"] for one in right), strict=True))
    if name not in presets():  # made for the experiment
        values |= {dial: card["dials"][dial.removeprefix("dial_")] for dial in DIALS}
    return [Result(row.base, CARD, metric, n, float(value), arm="base") for metric, value in values.items()]


def table(found: Sequence[Result], names: Iterable[str]) -> str:
    """Of each base by name: how often its own answers have harm, and how often each labeller is right."""
    told = {(one.base, one.metric): one for one in found if one.method == CARD}
    means = [one for one in found if (one.arm, one.metric, one.statistic) == ("base", "harmful", "mean")]
    start = {one.base: one for one in means if one.method != CARD}
    rows = [
        [f"`{name}`", cell(start[name]), *(number(told[name, metric].value, "share") for metric in RIGHT)]
        for name in names
    ]
    head = "What came of the bases, before any training:\n\n"
    return head + markdown.table(["base", "answers with harm", *RIGHT.values()], rows)
