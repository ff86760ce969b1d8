"""What the cards of lab bases say, as results beside those of the runs on them: how often each labeller was right."""

from __future__ import annotations

import json

from dlma.lab.bases import base_folder, presets
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
