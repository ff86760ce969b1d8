"""The workbench's ranking held against the grammar's true strength and against training with each pair.

python experiments/tables.py run workbench_validity    # its commands, then this table
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from dlma.checks.margin_facts import spearman
from dlma.checks.prompt_measures import MEASURES
from dlma.records import EvalRow, from_table
from dlma.report import markdown
from dlma.report.result_text import cell
from dlma.statistics.format import bounded, number
from dlma.statistics.intervals import Estimate
from dlma.statistics.paired import change
from dlma.sweep.results import Result, Settings, by_row, read_csv

HERE = Path(__file__).resolve().parent
BASE = "lab-standard"
MEASURED = [name for name in MEASURES if name != "distinct_2"]
Pair = dict[str, Result]  # what is known of one prompt pair, by metric


def collect(ranking: Path, sweep: Path) -> list[Result]:
    """The workbench's measures of each pair, and the change in harmlessness that training with it brought."""
    found, asked = [], yaml.safe_load((ranking / "config.yaml").read_text())
    seeds, names = (asked["seed"],), {}
    for row in csv.DictReader((ranking / "workbench.csv").open()):
        pair = _sides(row["positive"], row["negative"])
        names[pair] = row["prompts"]
        numbers = {name: round(float(row[name]), 6) for name in ("true_gap", *MEASURED) if row[name]}
        what = {"n": asked["mode"]["sample"], "settings": pair, "seeds": seeds}
        found += [Result(BASE, names[pair], metric=name, value=value, **what) for name, value in numbers.items()]
    for folder in sorted(path.parent for path in sweep.glob("*/answers.parquet")):
        affix = yaml.safe_load((folder / "config.yaml").read_text())["prompts"]["pairs"][0]
        pair = _sides(affix["positive"]["affix"], affix["negative"]["affix"])
        evals = from_table(EvalRow, pq.read_table(folder / "answers.parquet"))
        e, kl = change(evals, lambda row: row.harmlessness), change(evals, lambda row: row.logp - row.logp_base)
        what = {"settings": pair, "seeds": seeds}
        found.append(Result(BASE, names[pair], "harmless", e.n, e.value, e.low, e.high, **what))
        found.append(Result(BASE, names[pair], "kl", kl.n, kl.value, **what))
    return found


def _sides(positive: str, negative: str) -> Settings:
    return ("positive", positive), ("negative", negative)


def _pairs(found: Sequence[Result]) -> list[Pair]:
    return [{one.metric: one for one in row} for row in by_row(found).values()]


def _known() -> list[Pair]:
    return _pairs(read_csv(HERE / "results.csv"))


def rho(name: str) -> Estimate:
    """Spearman's rho of a measure with what training brought, over all pairs."""
    return _rho(_known(), name, "harmless")


def pairs() -> int:
    return len(_known())


def rank_of_the_wrong_way() -> int:
    """The place by mean R, from 1, of the one pair whose positive side is the weaker."""
    (place,) = [i for i, pair in enumerate(_ranked(_known()), 1) if pair["true_gap"].value < 0]
    return place


def _ranked(pairs: Sequence[Pair]) -> list[Pair]:
    return sorted(pairs, key=lambda pair: -pair["separation"].value)


def _rho(pairs: Sequence[Pair], name: str, against: str) -> Estimate | None:
    return spearman([(pair[name].value, pair[against].value) for pair in pairs if name in pair])


def render(found: Sequence[Result]) -> str:
    every = _pairs(found)
    right_way = [pair for pair in every if pair["true_gap"].value >= 0]
    rows = []
    for name in ["true_gap", *MEASURED]:
        held = [(every, "true_gap"), (every, "harmless"), (right_way, "harmless")]
        each = [_rho(pairs, name, against) for pairs, against in held]
        said = "true strength of the pair" if name == "true_gap" else MEASURES[name][0]
        rows.append([f"{name}: {said}", *("–" if one is None else bounded(one, "") for one in each)])
    heads = ["true strength", "harmlessness gained by training", f"{len(right_way)} pairs the right way round"]
    ranks = markdown.table(["measure", *heads], rows)
    heads = ["pair", "true strength", "mean R", "+ better", "harmlessness gained", "KL"]
    own = markdown.table(heads, map(_line, _ranked(every)))
    return "\n\n".join([f"Rank correlation over {len(every)} pairs with", ranks, own])


def _line(pair: Pair) -> list[str]:
    told = dict(pair["harmless"].settings)
    values = {name: number(pair[name].value, "") for name in ("true_gap", "separation", "kl")}
    better, gained = number(pair["construction"].value, "share"), cell(pair["harmless"])
    sides = f"{told['positive'].strip()} against {told['negative'].strip()}"
    return [sides, values["true_gap"], values["separation"], better, gained, values["kl"]]
