"""The map of when self-reward helps: harm by method over affix obedience x judge skill, and the tests between methods.

python experiments/tables.py run phase_diagram    # its commands, then this table
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from dlma.report import markdown
from dlma.report.result_text import cell, change, p_text
from dlma.sweep import estimates
from dlma.sweep.results import Result, over_seeds, read_csv
from dlma.sweep.settings import Setting
from experiments import base_cards
from experiments.base_cards import CARD, DIALS

HERE = Path(__file__).resolve().parent
SUBJECT, RIVALS = "dlma", ("rlcd", "rlaif")
METHODS = (SUBJECT, *RIVALS)
ALPHA = 0.05
Cells = dict[tuple[str, str, str, str], Result]  # by base, method, metric, statistic


def results(settings: Sequence[Setting]) -> list[Result]:
    """Harm and KL of every method on every base, the differences from the subject's, and the bases' own figures."""
    rows = [row for row in settings if row.final]
    trained = [row for row in rows if row.method in METHODS and row.arm == "aligned"]
    start = [row for row in rows if row.arm == "base"]
    found = estimates.results(trained, baseline=SUBJECT, tested=["harmful"]) + estimates.results(start, tested=[])
    kept = [
        one for one in over_seeds(found) if one.metric in ("harmful", "kl") and not one.statistic.startswith("needed")
    ]
    return kept + [line for row in start for line in base_cards.results(row)]


def render(found: Sequence[Result]) -> str:
    cells = _cells(found)
    dials = {one.base: _dials(one.base, cells) for one in found}
    bases = sorted(dials, key=lambda base: (dials[base] is None, dials[base] or (), base))
    return "\n\n".join([_map(bases, cells), base_cards.table(found, bases), _every(bases, cells)])


def _cells(found: Sequence[Result]) -> Cells:
    return {(one.base, one.method, one.metric, one.statistic): one for one in found}


def _dials(base: str, cells: Cells) -> tuple[float, ...] | None:
    """Affix obedience and the share of judge documents that tell the truth; None for a base beside the grid."""
    found = [cells.get((base, CARD, dial, "mean")) for dial in DIALS]
    return None if None in found else tuple(one.value for one in found)


def map_rows() -> str:
    """The map's rows alone, for a page with heads of its own."""
    return "\n".join(_grid(_cells(read_csv(HERE / "results.csv"))).splitlines()[2:])


def told_apart(differences: Sequence[Result]) -> list[Result]:
    """Those that are significant after Holm."""
    return [one for one in differences if one.p_holm < ALPHA]


def _map(bases: Sequence[str], cells: Cells) -> str:
    beside = [base for base in bases if _dials(base, cells) is None]
    others = [f"On `{base.removeprefix('lab-')}`: {_outcome(base, cells)}" for base in beside]
    head = (
        "Answers with harm in percent after training, the least first, and the KL in nats at which each method ended "
        f"(they differ); whom Holm over the comparisons with `{SUBJECT}` tells apart (others were not compared):"
    )
    return "\n\n".join([head, _grid(cells), *others])


def _grid(cells: Cells) -> str:
    grid = {dials: base for base, *_ in cells if (dials := _dials(base, cells))}
    judges = sorted({judge for _, judge in grid})
    rows = [
        [f"{obedience}", *(_outcome(grid[obedience, judge], cells) for judge in judges)]
        for obedience in sorted({obedience for obedience, _ in grid})
    ]
    heads = ["affix obedience", *(f"judge documents that tell the truth: {judge}" for judge in judges)]
    return markdown.table(heads, rows)


def _outcome(base: str, cells: Cells) -> str:
    """Every method's harm and KL, the least harm first, and the rivals that are told apart from the subject."""
    means = {metric: {m: cells.get((base, m, metric, "mean")) for m in METHODS} for metric in ("harmful", "kl")}
    harm = {method: one.value for method, one in means["harmful"].items() if one}
    if not harm:
        return "–"
    shown = [f"`{m}` {100 * harm[m]:.1f} at {means['kl'][m].value:.2f}" for m in sorted(harm, key=harm.get)]
    tests = {rival: cells.get((base, rival, "harmful", "difference")) for rival in RIVALS}
    sure = [f"`{rival}`" for rival, one in tests.items() if one and told_apart([one])]
    said = f"**{' and '.join(sure)} told apart from `{SUBJECT}`**" if sure else "not told apart"
    return ", ".join(shown) + "; " + said


def _every(bases: Sequence[str], cells: Cells) -> str:
    rows = []
    for base, method in itertools.product(bases, METHODS):
        harm, kl = (cells.get((base, method, metric, "mean")) for metric in ("harmful", "kl"))
        less = cells.get((base, method, "harmful", "difference"))
        if harm:
            tested = [change(less), p_text(less.p_holm)] if less else ["–", "–"]
            rows.append([f"`{base}`", f"`{method}`", cell(harm), cell(kl), *tested])
    head = f"Every method, and its harm less that of `{SUBJECT}`; p by Holm over this table:\n\n"
    return head + markdown.table(["base", "method", "answers with harm", "KL, nats", "difference", "p"], rows)
