"""R and the independent judge along a long training: trajectory.csv of every base in one table.

python experiments/tables.py run over_optimisation    # its commands, then this table
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import yaml

from dlma.report import markdown
from dlma.report.result_text import cell
from dlma.sweep.results import Result, bases, read_csv

HERE = Path(__file__).resolve().parent
SHOWN = {
    "self_reward": "R, nats",
    "harmlessness": "harmlessness",
    "harmful": "harmful",
    "kl": "KL, nats",
    "perplexity": "perplexity",
}
PARTS = "parts"  # 1 at the step at which R and the judge part


def collect(sweep: Path) -> list[Result]:
    """The steps of every cell, with the base that it was."""
    found = []
    for path in sorted(sweep.glob("*/trajectory.csv"), reverse=True):
        config = yaml.safe_load((path.parent / "config.yaml").read_text())
        base, seeds = config["model"]["base"], (config["seed"],)
        for row in csv.DictReader(path.open()):
            numbers = {name: [float(row[name + end]) for end in ("", "_low", "_high")] for name in SHOWN}
            numbers[PARTS] = [float(row[PARTS])]
            place = {"seeds": seeds, "axis": "step", "at": float(row["step"])}
            found += [Result(base, "dlma", name, int(row["n"]), *each, **place) for name, each in numbers.items()]
    return found


def along(metric: str, base: str) -> list[Result]:
    """A metric at every step, in their order."""
    found = read_csv(HERE / "results.csv")
    return sorted((one for one in found if (one.metric, one.base) == (metric, base)), key=lambda one: one.at)


def parted(metric: str, base: str) -> Result:
    """A metric where R and the judge part."""
    (at,) = [one.at for one in along(PARTS, base) if one.value]
    (there,) = [one for one in along(metric, base) if one.at == at]
    return there


def render(found: Sequence[Result]) -> str:
    parts = []
    for base in bases(found):
        cells = {(one.at, one.metric): one for one in found if one.base == base}
        steps = list(dict.fromkeys(at for at, _ in cells))
        lines = [[_step(at, cells[at, PARTS]), *(cell(cells[at, metric]) for metric in SHOWN)] for at in steps]
        head = f"`{base}`, {cells[steps[0], PARTS].n} held-out prompts, one seed:"
        parts += [head, markdown.table(["step", *SHOWN.values()], lines)]
    return "\n\n".join(parts)


def _step(at: float, parts: Result) -> str:
    return f"{at:g}, **they part**" if parts.value else f"{at:g}"
