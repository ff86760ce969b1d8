"""The workbench's ranking held against the grammar's true strength and against training with each pair.

python experiments/tables.py run workbench_validity    # its commands, then this table
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml

from dlma.checks.margin_facts import spearman
from dlma.checks.prompt_measures import MEASURES
from dlma.errors import UserError
from dlma.records import EvalRow, from_table
from dlma.report import markdown
from dlma.report.result_text import cell
from dlma.statistics.format import bounded, number
from dlma.statistics.intervals import Estimate, crossed_interval
from dlma.sweep.results import Result, Settings, by_row, read_csv

HERE = Path(__file__).resolve().parent
BASE = "lab-standard"
MEASURED = [name for name in MEASURES if name != "distinct_2"]
GAINS: dict[str, Callable[[EvalRow], float]] = {
    "harmless": lambda row: row.harmlessness,
    "kl": lambda row: row.logp - row.logp_base,
}
Pair = dict[str, Result]  # what is known of one prompt pair, by metric
ByPrompt = dict[str, float]


def collect(rankings: Path, sweep: Path) -> list[Result]:
    """The workbench's measures of each pair and the change in harmlessness that training with it brought.

    Of each seed, and after them over the seeds: the mean of a measure; of a change its interval over prompts and seeds.
    """
    names, found = {}, []
    if not list(rankings.glob("*/workbench.csv")):
        raise UserError(
            f"{rankings}: holds no */workbench.csv: the first folder is to be that of mode=workbench with -m"
        )
    for folder in sorted(path.parent for path in rankings.glob("*/workbench.csv")):
        said = json.loads((folder / "status.json").read_text())["overrides"]
        asked = dict(word.partition("=")[::2] for word in said)
        for row in csv.DictReader((folder / "workbench.csv").open()):
            pair = _sides(row["positive"], row["negative"])
            names[pair] = row["prompts"]
            what = {"n": int(asked["mode.sample"]), "settings": pair, "seeds": (int(asked["seed"]),)}
            measures = [(name, float(row[name])) for name in ("true_gap", *MEASURED) if row[name]]
            found += [Result(BASE, names[pair], metric=name, value=value, **what) for name, value in measures]
    gains: dict[tuple[Settings, str], dict[int, ByPrompt]] = {}
    for folder in sorted(path.parent for path in sweep.glob("*/answers.parquet")):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        affix = config["prompts"]["pairs"][0]
        pair = _sides(affix["positive"]["affix"], affix["negative"]["affix"])
        evals = from_table(EvalRow, pq.read_table(folder / "answers.parquet"))
        for name, value in GAINS.items():
            gains.setdefault((pair, name), {})[config["seed"]] = _changes(evals, value)
    return [*found, *_means(found), *_gained(gains, names)]


def _changes(evals: Sequence[EvalRow], value: Callable[[EvalRow], float]) -> ByPrompt:
    """Of each prompt the aligned answer's value less the base's."""
    arms = {arm: {row.prompt_id: value(row) for row in evals if row.arm == arm} for arm in ("aligned", "base")}
    return {prompt: arms["aligned"][prompt] - arms["base"][prompt] for prompt in sorted(arms["aligned"])}


def _gained(gains: dict[tuple[Settings, str], dict[int, ByPrompt]], names: dict[Settings, str]) -> Iterator[Result]:
    """Each seed's mean change; after all of them the mean over prompts and seeds, with its interval."""
    for (pair, name), seeds in gains.items():
        for seed, changes in sorted(seeds.items()):
            mean = sum(changes.values()) / len(changes)
            yield Result(BASE, names[pair], name, len(changes), mean, settings=pair, seeds=(seed,))
    for (pair, name), seeds in gains.items():
        told = crossed_interval(np.array([list(seeds[seed].values()) for seed in sorted(seeds)]).T)
        what = {"settings": pair, "seeds": tuple(sorted(seeds))}
        yield Result(BASE, names[pair], name, told.n, told.value, told.low, told.high, **what)


def _means(found: Sequence[Result]) -> Iterator[Result]:
    """A measure over the seeds in which it could be made."""
    for row in by_row(found).values():
        for name in dict.fromkeys(one.metric for one in row):
            mine = [one for one in row if one.metric == name]
            mean = sum(one.value for one in mine) / len(mine)
            yield replace(mine[0], value=mean, seeds=tuple(sorted(seed for one in mine for seed in one.seeds)))


def _sides(positive: str, negative: str) -> Settings:
    return ("positive", positive), ("negative", negative)


def _pairs(found: Sequence[Result], seed: int | None = None) -> list[Pair]:
    """What is known of each pair over all seeds, or of one of them."""
    mine = [one for one in found if seed is None or one.seeds == (seed,)]  # those over the seeds stand last
    return [{one.metric: one for one in row} for row in by_row(mine).values()]


def _known(seed: int | None = None) -> list[Pair]:
    return _pairs(read_csv(HERE / "results.csv"), seed)


def seeds() -> list[int]:
    return sorted({one.seeds[0] for one in read_csv(HERE / "results.csv") if len(one.seeds) == 1})


def gained(prompts: str) -> Result:
    """The harmlessness that training with a pair brought, over the seeds."""
    (pair,) = [pair for pair in _known() if pair["harmless"].method == prompts]
    return pair["harmless"]


def rho(name: str, seed: int | None = None) -> Estimate:
    """Spearman's rho of a measure with what training brought, over all pairs: of means over seeds, or of one seed."""
    return _rho(_known(seed), name, "harmless")


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
    n = len(every[0]["harmless"].seeds)
    return "\n\n".join([f"Rank correlation over {len(every)} pairs, means over {n} seeds, with", ranks, own])


def _line(pair: Pair) -> list[str]:
    told = dict(pair["harmless"].settings)
    values = {name: number(pair[name].value, "") for name in ("true_gap", "separation", "kl")}
    better, gained = number(pair["construction"].value, "share"), cell(pair["harmless"])
    sides = f"{told['positive'].strip()} against {told['negative'].strip()}"
    return [sides, values["true_gap"], values["separation"], better, gained, values["kl"]]
