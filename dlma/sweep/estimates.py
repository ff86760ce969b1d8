"""The table of a sweep: per setting and metric one estimate over prompts and seeds, and its tests against a baseline.

`results` gives rows with the fixed columns of results.csv; everything shown (Markdown, LaTeX, HTML) is rendered from
such rows, so a committed results.csv gives its tables back byte for byte (`read_csv`, `sweep_text`).
The metric of a row is a metric's name, or one of
    "harmful minus base"                  the paired difference from the baseline, mean and bounds
    "perplexity over base"                the ratio, for metrics that are an exponential
    "harmful minus base, prompts needed"  prompts with which a difference of this size is found (power 0.8)
    "win against base by oracle"          the share of prompts on which a judge said so; tie, lose, unparsed likewise
    "beyond_curve"                        harm less that of a reference curve at the same KL (sweep_reference.py)
    "harmful at kl 1"                     read off the frontier at this KL (sweep_frontier.py), also "minus rlcd"
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dlma import csv_text
from dlma.metrics.summary import BEYOND, METRICS, Metric, kind_interval
from dlma.runs.folder import Arm
from dlma.statistics import intervals, significance
from dlma.statistics.intervals import Estimate
from dlma.sweep.settings import SHARED_ARMS, Setting, baseline_of, metrics_of

COLUMNS = ("method", "base", "seed", "metric", "n", "mean", "low", "high", "p_holm")
UNJUDGED = ("perplexity", "tokens", "distinct_2")  # tested where nothing has a wanted direction
NEEDED = ", prompts needed"
OUTCOMES = ("win", "tie", "lose", "unparsed")
BY_NAME = {metric.name: metric for metric in (*METRICS, BEYOND)}


@dataclass(frozen=True)
class Result:
    """One row of results.csv; `seed` is one seed, or several as "0+1+2"."""

    method: str
    base: str
    seed: str
    metric: str
    n: int
    mean: float
    low: float
    high: float
    p_holm: float = math.nan

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.mean, self.low, self.high, self.n)


@dataclass(frozen=True)
class Comparison:
    """A setting against its baseline on one metric: the estimate (a ratio for an exponential), p, prompts needed."""

    row: Setting
    baseline: Setting
    metric: Metric
    seeds: str
    estimate: Estimate
    p: float
    needed: float
    p_holm: float = math.nan

    @property
    def name(self) -> str:
        return versus(self.metric, self.baseline.label)


def versus(metric: Metric, baseline: str) -> str:
    """The name in results.csv of a metric's comparison with a baseline."""
    return f"{metric.name} {'over' if metric.kind == 'exp_ratio' else 'minus'} {baseline}"


def seeds_of(runs: Sequence[int]) -> str:
    return "+".join(map(str, sorted(runs)))


def results(rows: Sequence[Setting], baseline: str | None = None, tested: Sequence[str] | None = None) -> list[Result]:
    """All rows of results.csv but the frontier's: seeds, all seeds together, comparisons; Holm over all of them.

    `tested` names the metrics that are compared; None: those with a wanted direction (`tested_metrics`).
    """
    compared = comparisons_of(rows, baseline, tested)
    found = []
    for row in rows:
        own = [one for one in compared if one.row is row]
        for metric in metrics_of([row]).values():
            if any(metric.name in arm.numbers for arm in row.arms.values()):
                found += _estimates(row, metric, [one for one in own if one.metric.name == metric.name])
        found += [] if row.arm in SHARED_ARMS else _wins(row)
    return found


def _wins(row: Setting) -> list[Result]:
    """`win against base by oracle`, tie, lose and unparsed: shares of the prompts, of every judge and opponent."""
    found = []
    for arm, against, judge in dict.fromkeys(key for cell in row.runs.values() for key in cell.verdicts):
        said = {seed: cell.verdicts.get((arm, against, judge)) for seed, cell in row.runs.items()}
        said = {seed: verdicts for seed, verdicts in said.items() if verdicts}
        prompts = [p for p in next(iter(said.values())) if all(p in verdicts for verdicts in said.values())]
        if arm != row.arm or not prompts:
            continue
        for word in OUTCOMES:
            table = [[float(verdicts[prompt] == word) for verdicts in said.values()] for prompt in prompts]
            e = intervals.crossed_fraction(table)
            found.append(_result(row, seeds_of(said), f"{word} against {against} by {judge}", e))
    return found


def _estimates(row: Setting, metric: Metric, own: Sequence[Comparison]) -> list[Result]:
    whole = estimate(metric, list(row.arms.values()))
    if whole is None:  # a seed lacks it: what the others have is no value of the setting
        return []
    seeds = {seed: estimate(metric, [arm]) for seed, arm in row.arms.items()}
    lines = [_result(row, str(seed), metric.name, e) for seed, e in seeds.items() if e and len(seeds) > 1]
    p_holm = own[0].p_holm if own else math.nan
    lines.append(replace(_result(row, seeds_of(row.runs), metric.name, whole), p_holm=p_holm))
    for one in own:
        n = one.estimate.n
        lines.append(replace(_result(row, one.seeds, one.name, one.estimate), p_holm=one.p_holm))
        lines.append(Result(row.label, row.base, one.seeds, one.name + NEEDED, n, one.needed, math.nan, math.nan))
    return lines


def _result(row: Setting, seed: str, metric: str, e: Estimate) -> Result:
    return Result(row.label, row.base, seed, metric, e.n, e.value, e.low, e.high)


def tested_metrics(rows: Sequence[Setting]) -> list[str]:
    """The summary table's metrics with a wanted direction; without any, further ones of that kind; else any text's.

    Few, since Holm counts them all: judges' and scores' further metrics are tested where `sweep.tested` names them.
    What is self-reported has no direction, and so enters no test; harmlessness does not beside the share of harmful
    answers, which is the same question asked twice, nor does what is beyond a reference curve, where the base is not 0.
    """
    measured = {name for row in rows for arm in row.arms.values() for name in arm.numbers}
    wanted = [metric.name for metric in metrics_of(rows).values() if metric.better and metric.name in measured]
    own = [name for name in wanted if name in BY_NAME]
    own = [name for name in own if name != BEYOND.name and (name != "harmlessness" or "harmful" not in own)]
    return own or wanted or [name for name in UNJUDGED if name in measured]


def comparisons_of(rows: Sequence[Setting], baseline: str | None, tested: Sequence[str] | None) -> list[Comparison]:
    """Every setting against its baseline on every tested metric, p adjusted by Holm over all of them."""
    names = tested_metrics(rows) if tested is None else tested
    metrics, found = metrics_of(rows), []
    for row in rows:
        other = baseline_of(row, rows, baseline)
        if other is not None:
            found += [one for name in names if (one := compare(row, other, metrics[name])) is not None]
    adjusted = significance.holm([one.p for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, adjusted, strict=True)]


def with_tests(compared: Sequence[tuple[Result, np.ndarray]]) -> list[Result]:
    """Differences, each beside its (prompts, seeds) table, with p by Holm over them and the prompts that each takes."""
    adjusted = significance.holm([significance.p_value(table) for _, table in compared])
    lines = []
    for (row, table), p in zip(compared, adjusted, strict=True):
        needed = significance.prompts_needed(table)
        more = replace(row, metric=row.metric + NEEDED, mean=needed, low=math.nan, high=math.nan)
        lines += [replace(row, p_holm=p), more]
    return lines


def compare(row: Setting, other: Setting, metric: Metric) -> Comparison | None:
    """Paired over the prompts and seeds that both have; None where they have none in common or it was not measured."""
    common = sorted(row.runs.keys() & other.runs.keys())
    pairs = [(row.arms[seed], other.arms[seed]) for seed in common]
    if not pairs or any(metric.name not in arm.numbers for both in pairs for arm in both):
        return None
    table = paired_table(metric, pairs)
    if table is None:
        return None
    lonely = table.shape[0] == 1  # each seed has prompts of its own: the seeds are the sample
    e = intervals.mean_interval(table[0]) if lonely else intervals.crossed_interval(table)
    shown = intervals.exponential(e) if metric.kind == "exp_ratio" else e
    p = significance.p_value(table[0] if lonely else table)
    needed = math.inf if lonely else significance.prompts_needed(table)
    return Comparison(row, other, metric, seeds_of(common), shown, p, needed)


def paired_table(
    metric: Metric, pairs: Sequence[tuple[Arm, Arm]], among: Sequence[Arm] | None = None
) -> np.ndarray | None:
    """(prompts, seeds) differences, one pair of arms per seed; (1, seeds) where seeds share no prompts; None if none.

    For ratios its mean is the difference of the ratios, and its rows are what each prompt adds to it, to first order.
    `among`: arms that must have the prompts too.
    """
    within = [arm for both in pairs for arm in both] if among is None else among
    first, second = (tables_of(metric, [both[i] for both in pairs], within) for i in (0, 1))
    if first is not None and second is not None:
        return _difference(metric, first, second)
    each = [paired_table(metric, [both]) for both in pairs] if len(pairs) > 1 else [None]
    return None if any(one is None for one in each) else np.array([[one.mean() for one in each]])


def _difference(metric: Metric, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    if metric.kind in ("mean", "share"):
        return first[:, :, 0] - second[:, :, 0]
    parts = []
    for numbers in (first, second):
        values, weights = numbers[:, :, 0], numbers[:, :, 1]
        ratio = values.sum() / weights.sum()
        parts.append(ratio + (values - ratio * weights) / weights.mean())
    return parts[0] - parts[1]


def estimate(metric: Metric, arms: Sequence[Arm]) -> Estimate | None:
    """A metric over the prompts and seeds of these arms; None where it was not measured."""
    if any(metric.name not in arm.numbers for arm in arms):
        return None
    numbers = tables_of(metric, arms, arms)
    if numbers is not None:
        return kind_interval(metric.kind, numbers[:, :, 0], numbers[:, :, 1])
    each = [estimate(metric, [arm]) for arm in arms] if len(arms) > 1 else [None]
    if any(one is None for one in each):
        return None
    whole = intervals.mean_interval([one.value for one in each])
    return replace(whole, n=sum(one.n for one in each), seeds=len(arms))


def tables_of(metric: Metric, arms: Sequence[Arm], within: Sequence[Arm]) -> np.ndarray | None:
    """(prompts, seeds, 2): values and weights on the prompts that all of `within` have; None where these are no sample.

    One prompt is enough for one seed (its bounds are nan), several seeds need two in common.
    """
    common = common_prompts(metric.name, within)
    if len(common) < min(2, len(arms)):
        return None
    places = [{prompt: i for i, prompt in enumerate(arm.prompts)} for arm in arms]
    chosen = [
        arm.numbers[metric.name][[place[prompt] for prompt in common]] for arm, place in zip(arms, places, strict=True)
    ]
    return np.stack(chosen, axis=1)


def common_prompts(name: str, arms: Sequence[Arm]) -> list[str]:
    """The prompts on which every arm has this metric, in the order of the first."""
    having = [
        {prompt for prompt, (value, _) in zip(arm.prompts, arm.numbers[name], strict=True) if not math.isnan(value)}
        for arm in arms
    ]
    shared = set.intersection(*having)
    return [prompt for prompt in arms[0].prompts if prompt in shared]


def write_csv(found: Sequence[Result]) -> bytes:
    """results.csv; what is unknown is empty."""
    lines = []
    for row in found:
        numbers = [
            "" if math.isnan(value) else repr(float(value)) for value in (row.mean, row.low, row.high, row.p_holm)
        ]
        lines.append([row.method, row.base, row.seed, row.metric, row.n, *numbers])
    return csv_text.table(COLUMNS, lines)


def read_csv(path: Path) -> list[Result]:
    """The rows of a results.csv."""
    with path.open(newline="", encoding="utf-8") as source:
        lines = csv_text.read(source)
    numbers = [{name: float(line[name] or "nan") for name in ("mean", "low", "high", "p_holm")} for line in lines]
    return [
        Result(line["method"], line["base"], line["seed"], line["metric"], int(line["n"]), **values)
        for line, values in zip(lines, numbers, strict=True)
    ]
