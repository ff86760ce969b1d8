"""R and the independent judge along a long training: trajectory.csv of every base and seed in one table.

python experiments/tables.py run over_optimisation    # its commands, then this table
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import yaml

from dlma.report import markdown
from dlma.report.result_text import cell
from dlma.statistics.intervals import mean_interval
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
    """The steps of every cell, with the base and the seed that it was."""
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
    """A metric's mean over the seeds at every step, in their order, with its interval over the seeds."""
    found = [one for one in read_csv(HERE / "results.csv") if one.base == base]
    return [_mean(metric, base, at, found) for at in sorted({one.at for one in found})]


def parted(base: str) -> list[float]:
    """The steps at which R and the judge part, one of each seed in which they do."""
    found = [one for one in read_csv(HERE / "results.csv") if (one.base, one.metric) == (base, PARTS) and one.value]
    return sorted(one.at for one in found)


def seeds() -> int:
    return len({one.seeds for one in read_csv(HERE / "results.csv")})


def _mean(metric: str, base: str, at: float, found: Sequence[Result]) -> Result:
    mine = [one for one in found if (one.metric, one.base, one.at) == (metric, base, at)]
    told = mean_interval([one.value for one in mine])
    every = tuple(seed for one in mine for seed in one.seeds)
    what = {"seeds": every, "axis": "step", "at": at}
    return Result(base, "dlma", metric, mine[0].n, told.value, told.low, told.high, **what)


def render(found: Sequence[Result]) -> str:
    parts = []
    for base in bases(found):
        mine = [one for one in found if one.base == base]
        places = sorted({one.at for one in mine})
        lines = []
        for at in places:
            apart = [one for one in mine if (one.metric, one.at) == (PARTS, at) and one.value]
            means = [cell(_mean(metric, base, at, mine)) for metric in SHOWN]
            lines.append([f"{at:g}", *means, str(len(apart) or "–")])
        n = len({one.seeds for one in mine})
        head = f"`{base}`, {mine[0].n} held-out prompts, means over {n} seeds with intervals over these:"
        parts += [head, markdown.table(["step", *SHOWN.values(), "seeds in which they part here"], lines)]
    return "\n\n".join(parts)
