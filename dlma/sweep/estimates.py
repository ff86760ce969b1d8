"""Per setting and metric one estimate over prompts and seeds, its tests against a baseline, and judges' verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dlma.metrics.summary import BEYOND, METRICS, Metric, are_shared, kind_interval
from dlma.runs.cells import Arm
from dlma.statistics import intervals, significance
from dlma.statistics.intervals import ALONE, Beside, Estimate, linearised_ratio
from dlma.sweep.results import OUTCOMES, Further, Result, Statistic, result
from dlma.sweep.settings import SHARED_ARMS, Setting, baseline_of, metrics_of

UNJUDGED = ("perplexity", "tokens", "distinct_2")  # tested where nothing has a wanted direction
BY_NAME = {metric.name: metric for metric in (*METRICS, BEYOND)}


@dataclass(frozen=True)
class Needed:
    """With how many prompts, or seeds, a difference is found; nan where one seed does not tell, inf where none do."""

    prompts: float
    seeds: float = math.nan

    @classmethod
    def of(cls, table: np.ndarray, beside: Beside = ALONE) -> Needed:
        return cls(significance.prompts_needed(table, beside), significance.seeds_needed(table, beside))


@dataclass(frozen=True)
class Comparison:
    """A setting against its baseline on one metric: the estimate (a ratio for an exponential), p, what it takes."""

    row: Setting
    baseline: Setting
    metric: Metric
    seeds: list[int]
    estimate: Estimate
    p: float
    needed: Needed
    p_holm: float = math.nan

    @property
    def results(self) -> list[Result]:
        what: Further = {"statistic": statistic_of(self.metric), "versus": self.baseline.label}
        found = result(self.row, self.metric.name, self.estimate, self.seeds, **what)
        return tested(found, self.p_holm, self.needed)


def statistic_of(metric: Metric) -> Literal["ratio", "difference"]:
    """How a metric is compared."""
    return "ratio" if metric.kind == "exp_ratio" else "difference"


def tested(found: Result, p_holm: float, needed: Needed) -> list[Result]:
    """A comparison with its p, and the prompts, or the seeds, that a difference of its size takes."""
    wanted: dict[Statistic, float] = {"needed": needed.prompts, "needed_seeds": needed.seeds}
    more = [
        replace(found, statistic=name, value=float(value), low=math.nan, high=math.nan)
        for name, value in wanted.items()
        if not math.isnan(value)
    ]
    return [replace(found, p_holm=p_holm), *more]


def results(rows: Sequence[Setting], baseline: str | None = None, tested: Sequence[str] | None = None) -> list[Result]:
    """Each seed, all seeds together, comparisons with the baseline (Holm over all of them), verdicts.

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
    """The shares of prompts on which each judge said win, tie, lose or unparsed, per opponent."""
    found = []
    for arm, against, judge in dict.fromkeys(key for cell in row.runs.values() for key in cell.verdicts):
        asked = {seed: cell.verdicts.get((arm, against, judge)) for seed, cell in row.runs.items()}
        said = {seed: verdicts for seed, verdicts in asked.items() if verdicts}
        if arm != row.arm or not said:
            continue
        for word in OUTCOMES:
            share = _share(word, list(said.values()))
            found.append(result(row, word, share, said, statistic="share", versus=against, judge=judge))
    return found


def _share(word: str, said: Sequence[Mapping[str, str]]) -> Estimate:
    """How often a judge said the word, by the verdicts of each seed; seeds are the sample where no prompt is shared."""
    prompts = [p for p in said[0] if all(p in verdicts for verdicts in said)]
    if len(said) == 1 or are_shared(len(prompts), map(len, said)):
        return intervals.crossed_fraction([[float(verdicts[p] == word) for verdicts in said] for p in prompts])
    shares = [sum(one == word for one in verdicts.values()) / len(verdicts) for verdicts in said]
    return replace(intervals.fraction_interval(shares), n=sum(map(len, said)), seeds=len(said))


def _estimates(row: Setting, metric: Metric, own: Sequence[Comparison]) -> list[Result]:
    whole = estimate(metric, list(row.arms.values()))
    if whole is None:  # a seed lacks it: what the others have is no value of the setting
        return []
    seeds = {seed: estimate(metric, [arm]) for seed, arm in row.arms.items()}
    lines = [result(row, metric.name, e, [seed]) for seed, e in seeds.items() if e and len(seeds) > 1]
    lines.append(result(row, metric.name, whole, row.runs, p_holm=own[0].p_holm if own else math.nan))
    return lines + [line for one in own for line in one.results]


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


def with_tests(compared: Sequence[tuple[Result, np.ndarray, Beside]]) -> list[Result]:
    """Differences, each with its (prompts, seeds) table and what is known beside it: p by Holm over them, and needs."""
    adjusted = significance.holm([significance.p_value(table, beside) for _, table, beside in compared])
    pairs = zip(compared, adjusted, strict=True)
    return [line for (row, table, beside), p in pairs for line in tested(row, p, Needed.of(table, beside))]


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
    e = intervals.with_exact_bounds(e, table[0] if lonely else table, 1.0 if metric.kind == "share" else None)
    shown = intervals.exponential(e) if metric.kind == "exp_ratio" else e
    p = significance.p_value(table[0] if lonely else table)
    needed = Needed(math.inf) if lonely else Needed.of(table)
    return Comparison(row, other, metric, common, shown, p, needed)


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
    whole = [one.mean() for one in each if one is not None]
    return np.array([whole]) if len(whole) == len(each) else None


def _difference(metric: Metric, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    if metric.kind in ("mean", "share"):
        return first[:, :, 0] - second[:, :, 0]
    (one, mine), (other, theirs) = (linearised_ratio(part[:, :, 0], part[:, :, 1]) for part in (first, second))
    return (one + mine) - (other + theirs)


def estimate(metric: Metric, arms: Sequence[Arm]) -> Estimate | None:
    """A metric over the prompts and seeds of these arms; None where it was not measured."""
    if any(metric.name not in arm.numbers for arm in arms):
        return None
    numbers = tables_of(metric, arms, arms)
    if numbers is not None:
        return kind_interval(metric.kind, numbers[:, :, 0], numbers[:, :, 1])
    each = [one for one in (estimate(metric, [arm]) for arm in arms) if one is not None] if len(arms) > 1 else []
    if not each or len(each) < len(arms):
        return None
    whole = intervals.mean_interval([one.value for one in each])
    return replace(whole, n=sum(one.n for one in each), seeds=len(arms))


def tables_of(metric: Metric, arms: Sequence[Arm], within: Sequence[Arm]) -> np.ndarray | None:
    """(prompts, seeds, 2): values and weights on the prompts that all of `within` have; None where these are no sample.

    One prompt is enough for one seed (its bounds are nan), several seeds need more in common (`are_shared`).
    """
    common = common_prompts(metric.name, within)
    if not common or (len(arms) > 1 and not are_shared(len(common), (measured(metric.name, arm) for arm in arms))):
        return None
    places = [{prompt: i for i, prompt in enumerate(arm.prompts)} for arm in arms]
    chosen = [
        arm.numbers[metric.name][[place[prompt] for prompt in common]] for arm, place in zip(arms, places, strict=True)
    ]
    return np.stack(chosen, axis=1)


def measured(name: str, arm: Arm) -> int:
    """On how many prompts an arm has this metric."""
    return int(np.count_nonzero(~np.isnan(arm.numbers[name][:, 0])))


def common_prompts(name: str, arms: Sequence[Arm]) -> list[str]:
    """The prompts on which every arm has this metric, in the order of the first."""
    having = [
        {prompt for prompt, (value, _) in zip(arm.prompts, arm.numbers[name], strict=True) if not math.isnan(value)}
        for arm in arms
    ]
    shared = set.intersection(*having)
    return [prompt for prompt in arms[0].prompts if prompt in shared]
