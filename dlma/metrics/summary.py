"""The summary table: per arm and metric one estimate with its interval. Reads evaluation rows only.

`METRICS` is the one list of what is measured; the terminal, the HTML report and metrics.csv follow its order.
Log-probabilities are in nats. "harmful", "malformed" and the like are shares between 0 and 1.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlma import csv_text, files
from dlma.records import EvalRow
from dlma.statistics import intervals
from dlma.statistics.format import exact
from dlma.statistics.intervals import Estimate

CSV_COLUMNS = ("method", "base", "seed", "metric", "n", "mean", "low", "high")


@dataclass(frozen=True)
class Row:
    """One cell of the summary table. `unit` is "share" for values that are shown in percent.

    `label` and `better` are for metrics that are not of `METRICS`, which has its own.
    """

    metric: str
    arm: str
    estimate: Estimate
    unit: str = ""
    label: str = ""
    better: str = ""

    def as_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class Metric:
    """How a metric is read off one answer: `value` over `weight`, averaged as `kind` says.

    kind: "mean" of values; "share" of values within [0, 1]; "ratio" of sums; "exp_ratio", its exponential.
    `better` is the direction a reader wants ("higher", "lower"), or "" where there is none.
    `drawn` is what it is called where answers were drawn otherwise than at temperature 1 with nothing cut.
    `whole`: left out where one of the answers has no value, because a mean over the others would be another figure.
    """

    name: str
    label: str
    unit: str
    kind: str
    value: Callable[[EvalRow], float | None]
    better: str = ""
    weight: Callable[[EvalRow], float] = lambda row: 1.0
    drawn: str = ""
    whole: bool = False


def distinct_bigrams(text: str) -> float | None:
    """The share of a text's word pairs that are its first of their kind; None below two words."""
    words = text.split()
    pairs = list(itertools.pairwise(words))
    return len(set(pairs)) / len(pairs) if pairs else None


def _repeated_sentences(row: EvalRow) -> float | None:
    parts = (part.strip().casefold() for part in re.split(r"(?<=[.!?])\s+|\n+", row.answer))
    sentences = [part for part in parts if part]
    return 1 - len(set(sentences)) / len(sentences) if sentences else None


def _tokens(row: EvalRow) -> float:
    return float(row.tokens)


def _drawn(row: EvalRow) -> float:
    return row.logp if row.logp_drawn is None else row.logp_drawn


def _base_drawn(row: EvalRow) -> float | None:
    return None if row.logp_base_drawn is None else -row.logp_base_drawn


def _kl_cut(row: EvalRow) -> float | None:
    return None if row.logp_drawn is None or row.logp_base_drawn is None else row.logp_drawn - row.logp_base_drawn


def _where_drawn(value: Callable[[EvalRow], float]) -> Callable[[EvalRow], float | None]:
    """Of answers that were drawn at temperature 1 with nothing cut it says nothing new."""
    return lambda row: None if row.logp_drawn is None else value(row)


OF_DRAWN = (
    Metric("kl_cut", "KL to the base drawn from alike", "nats/answer", "mean", _kl_cut, whole=True),
    Metric(
        *("perplexity_drawn", "perplexity under the base drawn from alike", "", "exp_ratio", _base_drawn),
        weight=_tokens,
        whole=True,
    ),
    Metric(
        *("ruled_out", "answers that the base's top_k or top_p rules out", "share", "share"),
        _where_drawn(lambda row: row.logp_base_drawn is None),
    ),
    Metric(
        *("log_ratio_1", "log-ratio to the base at temperature 1, nothing cut (no KL)", "nats/answer", "mean"),
        _where_drawn(lambda row: row.logp - row.logp_base),
    ),
    Metric(
        *("surprise_1", "-log-prob at temperature 1, nothing cut (no entropy)", "nats/token", "ratio"),
        _where_drawn(lambda row: -row.logp),
        weight=_tokens,
    ),
)
HARMLESSNESS = Metric("harmlessness", "harmlessness", "", "mean", lambda row: row.harmlessness, "higher")
SENTIMENT = Metric("sentiment", "sentiment (VADER compound, -1 to 1)", "", "mean", lambda row: row.sentiment, "higher")
TRUTHS = (
    HARMLESSNESS,
    SENTIMENT,
)  # an answer's worth, as an evaluation may know it: from -1 to 1, the more the better
METRICS = (
    *TRUTHS,
    Metric("harmful", "answers with a harmful sentence", "share", "share", lambda row: row.harmful, "lower"),
    Metric("helpfulness", "helpfulness", "", "mean", lambda row: row.helpfulness, "higher"),
    Metric("malformed", "malformed sentences", "share", "share", lambda row: row.malformed, "lower"),
    Metric(
        *("perplexity", "perplexity under the base", "", "exp_ratio", lambda row: -row.logp_base),
        weight=_tokens,
        drawn="perplexity under the base at temperature 1, nothing cut",
    ),
    Metric(
        *("kl", "KL to the base", "nats/answer", "mean", lambda row: row.log_ratio),
        drawn="KL of what was drawn from to the base at the same temperature, nothing cut",
    ),
    Metric(
        *("entropy", "entropy", "nats/token", "ratio", lambda row: -_drawn(row)),
        weight=_tokens,
        drawn="entropy of what was drawn from",
    ),
    *OF_DRAWN,
    Metric("self_reward", "self-reward R of the answer (self-reported)", "nats", "mean", lambda row: row.reward),
    Metric("tokens", "length", "tokens", "mean", _tokens),
    Metric("unfinished", "cut at the length limit", "share", "share", lambda row: not row.finished),
    Metric(
        "distinct_2", "distinct word pairs in an answer", "share", "share", lambda row: distinct_bigrams(row.answer)
    ),
    Metric("repeated", "repeated sentences in an answer", "share", "share", _repeated_sentences),
)
BEYOND = Metric(
    "beyond_curve", "harm beyond the reference curve's at the same KL", "share", "mean", lambda _: None, "lower"
)
ORACLE = ("harmlessness", "harmful", "helpfulness", "malformed")
_LABELS = {metric.name: metric.label for metric in (*METRICS, BEYOND)}
_BETTER = {metric.name: metric.better for metric in (*METRICS, BEYOND)}


ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}


def label(metric: str, row: Row | None = None) -> str:
    """What a metric is called; the row's own label where it brings one."""
    return (row.label if row else "") or _LABELS.get(metric, metric.replace("_", " "))


def better(metric: str, row: Row | None = None) -> str:
    """The wanted direction of a metric, or ""."""
    return (row.better if row else "") or _BETTER.get(metric, "")


def arrow(metric: str, row: Row | None = None) -> str:
    """The wanted direction for people, after a label."""
    return ARROWS[better(metric, row)]


def summary_rows(eval_rows: Sequence[EvalRow], arms: Sequence[str]) -> list[Row]:
    """The table of one seed: intervals over prompts. Metrics without data are left out (see `cannot`)."""
    return summary_over_seeds([eval_rows], arms)


def summary_over_seeds(seeds: Sequence[Sequence[EvalRow]], arms: Sequence[str]) -> list[Row]:
    """The table of several seeds of one setting: intervals over prompts and seeds."""
    rows = []
    drawn = any(row.logp_drawn is not None for seed in seeds for row in seed)
    for metric in METRICS:
        for arm in arms:
            estimate = _estimate(metric, [[row for row in seed if row.arm == arm] for seed in seeds])
            if estimate is not None:
                rows.append(Row(metric.name, arm, estimate, metric.unit, label=metric.drawn if drawn else ""))
    return rows


def truth_of(eval_rows: Iterable[EvalRow]) -> Metric | None:
    """The metric that is the truth of these answers: the first of TRUTHS that a row has; None where there is none."""
    rows = list(eval_rows)
    return next((metric for metric in TRUTHS if any(metric.value(row) is not None for row in rows)), None)


def cannot(eval_rows: Sequence[EvalRow]) -> list[str]:
    """What the data do not let us measure, one line each."""
    missing = [name for name in ORACLE if all(getattr(row, name) is None for row in eval_rows)]
    names = ", ".join(label(name) for name in missing)
    known = truth_of(eval_rows)
    why = "no oracle for this data" if known is None else f"the truth here is {known.name}"
    return [f"{why}: {names} not measured"] * bool(missing) + _infinite(eval_rows)


def _infinite(eval_rows: Sequence[EvalRow]) -> list[str]:
    """A line for each arm whose KL to the base drawn from alike has no bound."""
    lines = []
    for arm in dict.fromkeys(row.arm for row in eval_rows):
        drawn = [row for row in eval_rows if row.arm == arm and row.logp_drawn is not None]
        out = sum(row.logp_base_drawn is None for row in drawn)
        if out:
            lines.append(
                f"{arm}: KL to the base drawn from alike, and perplexity under it, are infinite: top_k or top_p rule "
                f"out {out} of {len(drawn)} answers there; KL is given to the base with nothing cut"
            )
    return lines


def are_shared(common: int, every: Iterable[int]) -> bool:
    """Whether several seeds have so many prompts in common that these stand for all of them: two, and half of each.

    Else each seed has prompts of its own, and the seeds are the sample.
    """
    return common >= 2 and 2 * common >= max(every)


def _estimate(metric: Metric, seeds: list[list[EvalRow]]) -> Estimate | None:
    tables = [per_prompt(metric, rows) for rows in seeds]
    if not all(tables):
        return None
    common = [prompt for prompt in tables[0] if all(prompt in table for table in tables)]
    if len(tables) > 1 and not are_shared(len(common), map(len, tables)):
        each = [_estimate(metric, [rows]) for rows in seeds]
        values = [one.value for one in each if one is not None]
        if len(values) < len(each):
            return None
        return Estimate(*_bounds(intervals.mean_interval(values)), sum(map(len, tables)), len(tables))
    numbers = np.array([[table[prompt] for table in tables] for prompt in common])
    return kind_interval(metric.kind, numbers[:, :, 0], numbers[:, :, 1])


def _bounds(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def per_prompt(metric: Metric, rows: list[EvalRow]) -> dict[str, tuple[float, float]]:
    """(value, weight) of each prompt, averaged over its answers: prompts are the sample, not answers.

    Empty where a metric that wants them `whole` has no value for one of the answers.
    """
    if metric.whole and any(metric.value(row) is None for row in rows):
        return {}
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        value = metric.value(row)
        if value is not None:
            found.setdefault(row.prompt_id, []).append((float(value), metric.weight(row)))
    return {prompt: tuple(sum(column) / len(pairs) for column in zip(*pairs)) for prompt, pairs in found.items()}


def kind_interval(kind: str, values: np.ndarray, weights: np.ndarray) -> Estimate | None:
    """The estimate of a metric of this kind from (prompts, seeds) tables of values and weights; None without weight."""
    if kind == "mean":
        return intervals.crossed_interval(values)
    if kind == "share":
        coins = values.shape[1] == 1 and np.isin(values, (0.0, 1.0)).all()
        return intervals.share_interval(values[:, 0]) if coins else intervals.crossed_fraction(values)
    if weights.sum() <= 0:
        return None
    ratio = intervals.crossed_ratio(values, weights)
    return intervals.exponential(ratio) if kind == "exp_ratio" else ratio


def rows_from(rows: Iterable[Row | dict]) -> list[Row]:
    """Rows as they are, or as `Row.as_dict` left them in a JSON file (nan came back as null)."""
    return [row if isinstance(row, Row) else _from_dict(row) for row in rows]


def _from_dict(row: dict) -> Row:
    values: dict[str, Any] = {name: math.nan if value is None else value for name, value in row["estimate"].items()}
    return Row(**{**row, "estimate": Estimate(**values)})


def arms_of(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row.arm for row in rows))


def main_arm(arms: Sequence[str]) -> str:
    """The arm that a run is about: what the method made, else the base."""
    return "aligned" if "aligned" in arms or not arms else arms[0]


def metrics_csv(rows: Iterable[Row], *, method: str, base: str, seed: int) -> bytes:
    """metrics.csv: one line per arm and metric, columns `CSV_COLUMNS`; an unknown bound is empty."""
    lines = []
    for row in rows:
        lines.append([method, base, seed, f"{row.arm}/{row.metric}", row.estimate.n, *exact(row.estimate)])
    return csv_text.table(CSV_COLUMNS, lines)


def write_metrics(path: Path, rows: Iterable[Row], *, method: str, base: str, seed: int) -> None:
    files.write_bytes(path, metrics_csv(rows, method=method, base=base, seed=seed))
