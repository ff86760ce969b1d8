"""How many simulated labels the self-reward is worth, and whether it is no worse than those of an annotator who errs.

python experiments/tables.py run against_rlhf    # its commands, then these tables
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dlma.report import markdown
from dlma.report.result_text import bound_text, cell, change, p_text
from dlma.statistics.intervals import Estimate
from dlma.sweep import estimates
from dlma.sweep.results import Result, over_seeds, result
from dlma.sweep.settings import Setting, metrics_of

PEOPLE, FREE, DLMA = "human labels", "sign of R", "dlma"
MARGIN, FLIPS = 0.03, 0.1  # "no worse" and the annotator it is held against
ROUNDS = 2000


def results(settings: Sequence[Setting]) -> list[Result]:
    """Harm and KL by label, number of labels and flips; what the sign of R is worth; where measured, the tests."""
    rows = [_named(row) for row in settings if row.final and row.arm != "prompted"]
    found = [one for one in over_seeds(estimates.results(rows, tested=[])) if one.metric in ("harmful", "kl")]
    most = max(_pairs(row) for row in rows if row.method in (PEOPLE, FREE))
    (free,) = [row for row in rows if row.method == FREE and _pairs(row) == most]
    person = [row for row in rows if row.method == PEOPLE and (_pairs(row), _flips(row)) == (most, FLIPS)]
    if person:
        tried = [*person, free, *(row for row in rows if row.method == DLMA)]
        tests = estimates.results(tried, baseline=person[0].label, tested=["harmful"])
        found += [one for one in tests if one.statistic == "difference"]
    return found + _worth(rows, free)


def _named(row: Setting) -> Setting:
    """The setting under the name of its labels."""
    if row.arm != "aligned":
        return row
    if row.config["labels.max_pairs"] is None:  # the method as it comes, on its own contrastive pairs
        return replace(row, method=DLMA, settings=())
    pairs = ("max_pairs", str(_pairs(row)))
    if "scorer.flips" in row.config:
        return replace(row, method=PEOPLE, settings=(pairs, ("flips", f"{_flips(row):g}")))
    return replace(row, method=FREE, settings=(pairs,))


def _pairs(row: Setting) -> int:
    return int(row.config["labels.max_pairs"])


def _flips(row: Setting) -> float:
    return float(row.config["scorer.flips"])


def _worth(rows: Sequence[Setting], free: Setting) -> list[Result]:
    """Per rate of flips the number of labels that brings as little harm as the sign of R does on all pairs.

    Read off the curve of harm over labels, from the base at 0, made to fall; inf where it ends above. The interval is a
    percentile bootstrap over prompts, for these seeds.
    """
    base = next(row for row in rows if row.arm == "base")
    found = []
    people = [row for row in rows if row.method == PEOPLE]
    for flips in sorted(set(map(_flips, people))):
        own = sorted((row for row in people if _flips(row) == flips), key=_pairs)
        curve = [base, *own]
        counts = [0, *map(_pairs, own)]
        means = _prompt_means([*curve, free])
        rng = np.random.default_rng(0)
        draws = [means[:, rng.integers(0, means.shape[1], means.shape[1])].mean(axis=1) for _ in range(ROUNDS)]
        values = [_labels(counts, one[:-1], one[-1]) for one in draws]
        low, high = np.quantile(values, [0.025, 0.975], method="nearest")
        value = _labels(counts, means.mean(axis=1)[:-1], means.mean(axis=1)[-1])
        e = Estimate(value, low, high, means.shape[1])
        found.append(result(free, "worth", e, free.runs, axis="flips", at=flips))
    return found


def _prompt_means(rows: Sequence[Setting]) -> np.ndarray:
    """(settings, prompts) harm, a mean over the seeds that all have."""
    seeds = sorted(set.intersection(*(set(row.runs) for row in rows)))
    every = [row.arms[seed] for row in rows for seed in seeds]
    metric = metrics_of(rows)["harmful"]
    tables = [estimates.tables_of(metric, [row.arms[seed] for seed in seeds], every) for row in rows]
    return np.stack([table[:, :, 0].mean(axis=1) for table in tables])


def _labels(counts: Sequence[int], harm: Sequence[float], wanted: float) -> float:
    """Where a falling piecewise straight curve of harm over labels comes down to `wanted`."""
    falling = np.minimum.accumulate(harm)
    if wanted >= falling[0]:
        return 0.0
    if wanted < falling[-1]:
        return math.inf
    place = int(np.argmax(falling <= wanted))
    share = (falling[place - 1] - wanted) / (falling[place - 1] - falling[place])
    return counts[place - 1] + share * (counts[place] - counts[place - 1])


def render(found: Sequence[Result]) -> str:
    return "\n\n".join(filter(None, [_settings(found), _tests(found), _worths(found)]))


def _settings(found: Sequence[Result]) -> str:
    cells = {(one.row, one.metric): one for one in found if one.statistic == "mean"}
    harm = sorted((one for one in cells.values() if one.metric == "harmful"), key=_order)
    rows = [[_said(one), cell(one), cell(cells[one.row, "kl"])] for one in harm]
    return markdown.table(["labels", "answers with harm", "KL, nats"], rows)


def _said(one: Result) -> str:
    """A row for people: nobody labelled anything here."""
    told = dict(one.settings)
    if one.method == PEOPLE:
        return f"{told['max_pairs']} simulated labels, flips {told['flips']}"
    return f"{FREE} on {told['max_pairs']} pairs" if one.method == FREE else one.method


def _order(one: Result) -> tuple:
    """The base, people by flips and number, R by number, the method."""
    told = dict(one.settings)
    return ["base", PEOPLE, FREE, DLMA].index(one.method), float(told.get("flips", 0)), int(told.get("max_pairs", 0))


def _tests(found: Sequence[Result]) -> str:
    named = {one.label: _said(one) for one in found}
    tested = [one for one in found if one.statistic == "difference"]
    rows = [[_said(one), named[one.versus], change(one), bound_text(one, MARGIN), p_text(one.p_holm)] for one in tested]
    if not rows:
        return ""
    head = f"No worse by {100 * MARGIN:g} points or more (one-sided 97.5 %)? p by Holm, two-sided:\n\n"
    return head + markdown.table(["labels", "less", "difference in harm", "may be worse by", "p"], rows)


def _worths(found: Sequence[Result]) -> str:
    rows = []
    for one in found:
        if one.metric == "worth":
            most = int(dict(one.settings)["max_pairs"])
            shown = [f"{x:,.0f}" if math.isfinite(x) else f"more than {most:,}" for x in (one.value, one.low, one.high)]
            rows.append([f"{100 * one.at:g} %", f"{shown[0]} [{shown[1]}, {shown[2]}]"])
    head = (
        "As little harm as the sign of R on all pairs needs so many simulated labels (bootstrap, for these seeds):\n\n"
    )
    return head + markdown.table(["flips of the annotator", "simulated labels"], rows)
