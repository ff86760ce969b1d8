"""How many simulated labels the self-reward is worth, and whether it is no worse than those of an annotator who errs.

python experiments/tables.py run against_rlhf    # its commands, then these tables
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dlma.report import markdown
from dlma.report.tables import bound_text, cell, change, p_text
from dlma.runs import folder as run_folders
from dlma.sweep import estimates as sweep_results
from dlma.sweep import settings as sweep_settings
from dlma.sweep.estimates import Result
from dlma.sweep.rows import Versus, versuses, whole
from dlma.sweep.settings import Setting

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.csv"
FREE, DLMA = "sign of R", "dlma"
MARGIN, FLIPS = 0.03, 0.1  # "no worse" and the annotator it is held against
ROUNDS = 2000
WORTH = "worth at flips "


def collect(*folders: Path) -> None:
    """Harm and KL by label, number of labels and flips; what the sign of R is worth; where measured, the tests."""
    rows = [_named(row) for row in sweep_settings.settings(run_folders.collect(folders)) if row.final]
    rows = [row for row in rows if row.arm != "prompted"]
    found = [r for r in sweep_results.results(rows, tested=[]) if r.metric in ("harmful", "kl") and "+" in r.seed]
    most = max(_pairs(row) for row in rows if row.arm == "aligned" and row.label != DLMA)
    person = _person(most, FLIPS)
    if any(row.label == person for row in rows):
        tried = [row for row in rows if row.label in (person, _free(most), DLMA)]
        tests = sweep_results.results(tried, baseline=person, tested=["harmful"])
        found += [r for r in tests if r.metric == f"harmful minus {person}"]
    RESULTS.write_bytes(sweep_results.write_csv([*found, *_worth(rows, most)]))


def _named(row: Setting) -> Setting:
    """The setting under the name of its labels."""
    if row.arm != "aligned":
        return row
    if row.config["labels.max_pairs"] is None:  # the method as it comes, on its own contrastive pairs
        return _called(row, DLMA)
    if "scorer.flips" in row.config:
        return _called(row, _person(_pairs(row), float(row.config["scorer.flips"])))
    return _called(row, _free(_pairs(row)))


def _called(row: Setting, label: str) -> Setting:
    return Setting(label, row.method, row.base, row.arm, row.overrides, row.runs)


def _pairs(row: Setting) -> int:
    return int(row.config["labels.max_pairs"])


def _person(pairs: int, flips: float) -> str:
    return f"{pairs} human labels, flips {flips:g}"


def _free(pairs: int) -> str:
    return f"{FREE} on {pairs} pairs"


def _worth(rows: Sequence[Setting], most: int) -> list[Result]:
    """Per rate of flips the number of labels that brings as little harm as the sign of R does on all pairs.

    Read off the curve of harm over labels, from the base at 0, made to fall; inf where it ends above. The interval is a
    percentile bootstrap over prompts, for these seeds.
    """
    free = next(row for row in rows if row.label == _free(most))
    base = next(row for row in rows if row.arm == "base")
    found = []
    for flips in sorted({float(row.config["scorer.flips"]) for row in rows if "scorer.flips" in row.config}):
        people = [row for row in rows if row.config.get("scorer.flips") == flips and row.arm == "aligned"]
        curve = [base, *sorted(people, key=_pairs)]
        counts = [0, *sorted(map(_pairs, people))]
        means = _prompt_means([*curve, free])
        rng = np.random.default_rng(0)
        draws = [means[:, rng.integers(0, means.shape[1], means.shape[1])].mean(axis=1) for _ in range(ROUNDS)]
        values = [_labels(counts, one[:-1], one[-1]) for one in draws]
        low, high = np.quantile(values, [0.025, 0.975], method="nearest")
        value = _labels(counts, means.mean(axis=1)[:-1], means.mean(axis=1)[-1])
        seeds = sweep_results.seeds_of(free.runs)
        found.append(Result(_free(most), free.base, seeds, f"{WORTH}{flips:g}", means.shape[1], value, low, high))
    return found


def _prompt_means(rows: Sequence[Setting]) -> np.ndarray:
    """(settings, prompts) harm, a mean over the seeds that all have."""
    seeds = sorted(set.intersection(*(set(row.runs) for row in rows)))
    every = [row.arms[seed] for row in rows for seed in seeds]
    metric = sweep_settings.metrics_of(rows)["harmful"]
    tables = [sweep_results.tables_of(metric, [row.arms[seed] for seed in seeds], every) for row in rows]
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


def render() -> str:
    """The Markdown of results.csv."""
    found = sweep_results.read_csv(RESULTS)
    tested = versuses(whole(found, found[0].base))
    return "\n\n".join([_settings(found), *([_tests(tested)] if tested else []), _worths(found)])


def _settings(found: Sequence[Result]) -> str:
    cells = {(r.method, r.metric): r for r in found}
    labels = sorted(dict.fromkeys(r.method for r in found if r.metric == "harmful"), key=_order)
    rows = [
        [_said(label), cell(cells[label, "harmful"], "harmful"), cell(cells[label, "kl"], "kl")] for label in labels
    ]
    return markdown.table(["labels", "answers with harm", "KL, nats"], rows)


def _said(label: str) -> str:
    """A label for people: nobody labelled anything here."""
    return label.replace("human labels", "simulated labels")


def _order(label: str) -> tuple:
    """The base, people by flips and number, R by number, the method."""
    numbers = [float(word.rstrip(",")) for word in label.split() if word.rstrip(",").replace(".", "").isdigit()]
    return ("base" not in label, label == DLMA, FREE in label, numbers[::-1])


def _tests(tested: Sequence[Versus]) -> str:
    rows = [
        [_said(one.method), _said(one.baseline), change(one), bound_text(one, MARGIN), p_text(one.result.p_holm)]
        for one in tested
    ]
    head = f"No worse by {100 * MARGIN:g} points or more (one-sided 97.5 %)? p by Holm, two-sided:\n\n"
    return head + markdown.table(["labels", "less", "difference in harm", "may be worse by", "p"], rows)


def _worths(found: Sequence[Result]) -> str:
    rows = []
    for r in found:
        if r.metric.startswith(WORTH):
            most = r.method.split(" ")[-2]
            shown = [f"{x:,.0f}" if math.isfinite(x) else f"more than {int(most):,}" for x in (r.mean, r.low, r.high)]
            rows.append([f"{100 * float(r.metric.removeprefix(WORTH)):g} %", f"{shown[0]} [{shown[1]}, {shown[2]}]"])
    head = (
        "As little harm as the sign of R on all pairs needs so many simulated labels (bootstrap, for these seeds):\n\n"
    )
    return head + markdown.table(["flips of the annotator", "simulated labels"], rows)
