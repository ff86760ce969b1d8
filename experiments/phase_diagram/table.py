"""The map of when self-reward helps: harm by method over affix obedience x judge skill, and the tests between methods.

python experiments/tables.py run phase_diagram    # its commands, then this table
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

from dlma.lab.bases import base_folder
from dlma.report import markdown
from dlma.report.tables import cell, change, p_text
from dlma.runs import folder as run_folders
from dlma.statistics.format import number
from dlma.sweep import estimates as sweep_results
from dlma.sweep import settings as sweep_settings
from dlma.sweep.estimates import Result
from dlma.sweep.rows import versuses

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.csv"
SUBJECT, RIVALS = "dlma", ("rlcd", "rlaif")
METHODS = (SUBJECT, *RIVALS)
GRID = re.compile(r"lab-o(?P<obedience>[\d.]+)j(?P<judge>[\d.]+)")
RIGHT = ("construction right", "sign of R right", "judge right")
ALPHA = 0.05
CARD = "base card"  # what the base was measured to be, before any training


def collect(*folders: Path) -> None:
    """Harm and KL of every method on every base, the differences from the subject's, and the bases' own figures."""
    rows = [row for row in sweep_settings.settings(run_folders.collect(folders)) if row.final]
    trained = [row for row in rows if row.method in METHODS and row.arm == "aligned"]
    found = sweep_results.results(trained, baseline=SUBJECT, tested=["harmful"])
    found += sweep_results.results([row for row in rows if row.arm == "base"], tested=[])
    kept = ("harmful", "kl", f"harmful minus {SUBJECT}")
    whole = {(r.method, r.base, r.metric): r for r in found if r.metric in kept}
    cards = [line for row in rows if row.arm == "base" for line in _card(row)]
    RESULTS.write_bytes(sweep_results.write_csv([*whole.values(), *cards]))


def _card(row: sweep_settings.Setting) -> list[Result]:
    """From the card beside the base's weights: how often each labeller was right, ties in the truth left out."""
    card = json.loads((base_folder(str(row.config["model.base"])) / "card.json").read_text())
    figures, n = card["figures"], card["figures"]["prompts"]
    right = [figures["construction"], figures["sign_R"], figures["judge"]["both_orders"]]
    return [
        Result(CARD, row.base, "", name, n, one["without_ties"], math.nan, math.nan)
        for name, one in zip(RIGHT, right, strict=True)
    ]


def render() -> str:
    """The Markdown of results.csv."""
    found = sweep_results.read_csv(RESULTS)
    cells = {(r.base, r.method, r.metric): r for r in found}
    bases = sorted({r.base for r in found}, key=_place)
    return "\n\n".join([_map(bases, cells), _labellers(bases, cells), _every(bases, cells)])


def _place(base: str) -> tuple:
    match = GRID.fullmatch(base)
    return (0, float(match["obedience"]), float(match["judge"])) if match else (1, base)


def map_rows() -> str:
    """The map's rows alone, for a page with heads of its own."""
    found = sweep_results.read_csv(RESULTS)
    return "\n".join(_grid({(r.base, r.method, r.metric): r for r in found}).splitlines()[2:])


def told_apart(differences: Sequence[Result]) -> list[Result]:
    """Those that are significant after Holm."""
    return [one for one in differences if one.p_holm < ALPHA]


def _map(bases: Sequence[str], cells: dict) -> str:
    others = [
        f"On `{base.removeprefix('lab-')}`: {_outcome(base, cells)}" for base in bases if not GRID.fullmatch(base)
    ]
    head = (
        "Answers with harm in percent after training, the least first, and the KL in nats at which each method ended "
        f"(they differ); whom Holm over the comparisons with `{SUBJECT}` tells apart (others were not compared):"
    )
    return "\n\n".join([head, _grid(cells), *others])


def _grid(cells: dict) -> str:
    grid = [match for match in map(GRID.fullmatch, {base for base, _, _ in cells}) if match]
    judges = sorted({match["judge"] for match in grid}, key=float)
    rows = [
        [obedience, *(_outcome(f"lab-o{obedience}j{judge}", cells) for judge in judges)]
        for obedience in sorted({match["obedience"] for match in grid}, key=float)
    ]
    heads = ["affix obedience", *(f"judge documents that tell the truth: {judge}" for judge in judges)]
    return markdown.table(heads, rows)


def _outcome(base: str, cells: dict) -> str:
    """Every method's harm and KL, the least harm first, and the rivals that are told apart from the subject."""
    harm = {method: cells[base, method, "harmful"].mean for method in METHODS if (base, method, "harmful") in cells}
    if not harm:
        return "–"
    shown = [f"`{m}` {100 * harm[m]:.1f} at {cells[base, m, 'kl'].mean:.2f}" for m in sorted(harm, key=harm.get)]
    tests = {rival: cells.get((base, rival, f"harmful minus {SUBJECT}")) for rival in RIVALS}
    sure = [f"`{rival}`" for rival, one in tests.items() if one and told_apart([one])]
    said = f"**{' and '.join(sure)} told apart from `{SUBJECT}`**" if sure else "not told apart"
    return ", ".join(shown) + "; " + said


def _labellers(bases: Sequence[str], cells: dict) -> str:
    """What the dials made of each base."""
    rows = [
        [
            f"`{base}`",
            cell(cells[base, "base", "harmful"], "harmful"),
            *(number(cells[base, CARD, name].mean, "share") for name in RIGHT),
        ]
        for base in bases
    ]
    head = "What the dials made of the bases, before any training:\n\n"
    return head + markdown.table(["base", "answers with harm", *RIGHT], rows)


def _every(bases: Sequence[str], cells: dict) -> str:
    rows = []
    for base, method in itertools.product(bases, METHODS):
        found = {metric: r for (on, of, metric), r in cells.items() if (on, of) == (base, method)}
        if found:
            less = [[change(one), p_text(one.result.p_holm)] for one in versuses({method: found})]
            values = [cell(found["harmful"], "harmful"), cell(found["kl"], "kl")]
            rows.append([f"`{base}`", f"`{method}`", *values, *(less[0] if less else ["–", "–"])])
    head = f"Every method, and its harm less that of `{SUBJECT}`; p by Holm over this table:\n\n"
    return head + markdown.table(["base", "method", "answers with harm", "KL, nats", "difference", "p"], rows)
