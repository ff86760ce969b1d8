"""The map of when self-reward helps: harm by method over affix obedience x judge skill, and the tests between methods.

python experiments/tables.py run phase_diagram    # its commands, then this table
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

from dlma.evaluation.statistics import Estimate
from dlma.lab.bases import base_folder
from dlma.report import sweep, sweep_cells, sweep_table
from dlma.report.summary import interval, number
from dlma.report.sweep_table import Result
from dlma.report.sweep_text import p_text

HERE = Path(__file__).resolve().parent
RESULTS, README = HERE / "results.csv", HERE / "README.md"
START, END = "<!-- results:start -->\n", "<!-- results:end -->"
SUBJECT, RIVALS = "dlma", ("rlcd", "rlaif")
METHODS = (SUBJECT, *RIVALS)
GRID = re.compile(r"lab-o(?P<obedience>[\d.]+)j(?P<judge>[\d.]+)")
CARD = "base card"  # what the base was measured to be, before any training


def collect(*folders: Path) -> None:
    """Harm and KL of every method on every base, the differences from the subject's, and the bases' own figures."""
    rows = [row for row in sweep.settings(sweep_cells.collect(folders)) if row.final]
    trained = [row for row in rows if row.method in METHODS and row.arm == "aligned"]
    found = sweep_table.results(trained, baseline=SUBJECT, tested=["harmful"])
    found += sweep_table.results([row for row in rows if row.arm == "base"], tested=[])
    kept = ("harmful", "kl", f"harmful minus {SUBJECT}")
    whole = {(r.method, r.base, r.metric): r for r in found if r.metric in kept}
    cards = [line for row in rows if row.arm == "base" for line in _card(row)]
    RESULTS.write_bytes(sweep_table.write_csv([*whole.values(), *cards]))


def _card(row: sweep.Setting) -> list[Result]:
    """From the card beside the base's weights: how often each labeller was right, ties in the truth left out."""
    card = json.loads((base_folder(str(row.config["model.base"])) / "card.json").read_text())
    figures, n = card["figures"], card["figures"]["prompts"]
    right = {
        "construction right": figures["construction"]["without_ties"],
        "sign of R right": figures["sign_R"]["without_ties"],
        "judge right": figures["judge"]["both_orders"]["without_ties"],
    }
    return [Result(CARD, row.base, "", name, n, value, math.nan, math.nan) for name, value in right.items()]


def render() -> str:
    """The Markdown of results.csv."""
    found = sweep_table.read_csv(RESULTS)
    cells = {(r.base, r.method, r.metric): r for r in found}
    bases = sorted({r.base for r in found}, key=_place)
    return "\n\n".join([_map(bases, cells), _labellers(bases, cells), _every(bases, cells)])


def _place(base: str) -> tuple:
    match = GRID.fullmatch(base)
    return (0, float(match["obedience"]), float(match["judge"])) if match else (1, base)


def _map(bases: Sequence[str], cells: dict) -> str:
    grid = [match for match in map(GRID.fullmatch, bases) if match]
    judges = sorted({match["judge"] for match in grid}, key=float)
    lines = ["Answers with harm after training, the least in bold:", ""]
    lines += _head(["affix obedience", *(f"judge documents that tell the truth: {judge}" for judge in judges)])
    for obedience in sorted({match["obedience"] for match in grid}, key=float):
        lines.append(_row([obedience, *(_best(f"lab-o{obedience}j{judge}", cells) for judge in judges)]))
    others = [f"On `{base.removeprefix('lab-')}`: {_best(base, cells)}" for base in bases if not GRID.fullmatch(base)]
    return "\n".join([*lines, "", *others])


def _best(base: str, cells: dict) -> str:
    """Every method's harm, the least first and in bold."""
    harm = {method: cells[base, method, "harmful"].mean for method in METHODS if (base, method, "harmful") in cells}
    shown = [f"`{method}` {100 * harm[method]:.1f}" for method in sorted(harm, key=harm.get)]
    return ", ".join([f"**{shown[0]}**", *shown[1:]]) if shown else "–"


def _labellers(bases: Sequence[str], cells: dict) -> str:
    """What the dials made of each base."""
    names = ("construction right", "sign of R right", "judge right")
    lines = ["What the dials made of the bases, before any training:", ""]
    lines += _head(["base", "answers with harm", *names])
    for base in bases:
        start = cells[base, "base", "harmful"]
        told = [f"{100 * cells[base, CARD, name].mean:.1f} %" for name in names]
        lines.append(_row([f"`{base}`", _cell(start), *told]))
    return "\n".join(lines)


def _every(bases: Sequence[str], cells: dict) -> str:
    lines = [f"Every method, and its harm less that of `{SUBJECT}` in points; p by Holm over this table:", ""]
    lines += _head(["base", "method", "answers with harm", "KL, nats", "difference", "p"])
    for base in bases:
        for method in METHODS:
            if (base, method, "harmful") not in cells:
                continue
            versus = cells.get((base, method, f"harmful minus {SUBJECT}"))
            change = [_points(versus), p_text(versus.p_holm)] if versus else ["–", "–"]
            kl = cells[base, method, "kl"]
            shown = f"{number(kl.mean, '')} {interval(Estimate(kl.mean, kl.low, kl.high, kl.n), '')}"
            lines.append(_row([f"`{base}`", f"`{method}`", _cell(cells[base, method, "harmful"]), shown, *change]))
    return "\n".join(lines)


def _cell(r: Result) -> str:
    return f"{number(r.mean, 'share')} {interval(Estimate(r.mean, r.low, r.high, r.n), 'share')}"


def _points(r: Result) -> str:
    mean, low, high = (100 * x for x in (r.mean, r.low, r.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _head(names: Sequence[str]) -> list[str]:
    return [_row(names), "|" + "---|" * len(names)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_readme(text: str) -> None:
    """Put the text between the README's markers."""
    before, rest = README.read_text().split(START)
    README.write_text(before + START + text + "\n" + END + rest.split(END)[1])
