"""R and what stands beside it, held to people: values.parquet and agreement.csv from finished run folders.

    python experiments/real_self_reward/measure.py human:harmless_affix=RUN human:system=RUN human:judge=RUN ...
        refusals:harmless_affix=RUN own:sentiment_affix=RUN own_harm:harmless_affix=RUN

A run is named by its data and its wording; `judge` is the run whose judge was asked. In `human` and `refusals` the
first answer is the one that people preferred, or the refusal; in `own` VADER says which of the model's own answers is
the happier one, in `own_harm` the shipped classifier which of them refuses. Data that are not named stay as they are
in values.parquet, which holds numbers and hashes only; agreement.csv is made anew from it in any case.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dlma import records
from dlma.evaluation.sentiment import compound
from dlma.metrics.refusal_classifier import shipped
from dlma.metrics.signal_agreement import SignalAgreement, accuracy_rows
from dlma.records import ScoredPair
from dlma.statistics.intervals import Estimate, mean_interval

HERE = Path(__file__).resolve().parent
VALUES, AGREEMENT = HERE / "values.parquet", HERE / "agreement.csv"
FIRST = "harmless_affix"  # of which every other signal's difference is taken
JUDGE = "judge"
REFUSES = 0.5  # as conf/metrics/refusal.yaml
OWN = ("own", "own_harm")  # answers of the model itself, the first under the positive prompt
METRICS = ("agreement", "longer", "first", "inconsistent")


@dataclass(frozen=True)
class Held:
    """What was found of one pair; both answers in the order first, second.

    data: "human", "refusals", "own" or "own_harm"; pair, prompt: hashes
    truth: by how much the first answer is the better one; 1 where people only say that it is
    r_first, r_second: log p(answer | p+) - log p(answer | p-), nats; plain_*: log p(answer | prompt), nats
    tokens_first, tokens_second: lengths of the answers as scored; cut_*: at the limit
    judge, shown_first, shown_second: 1 where the judge prefers the first answer, both orders together or one
    """

    data: str
    wording: str
    pair: str
    prompt: str
    category: str | None
    truth: float
    tokens_first: int
    tokens_second: int
    cut_first: bool
    cut_second: bool
    r_first: float | None
    r_second: float | None
    plain_first: float | None
    plain_second: float | None
    judge: float | None
    shown_first: float | None
    shown_second: float | None


def read(data: str, wording: str, folder: Path) -> Iterator[Held]:
    """The pairs of a run folder; raises FileNotFoundError where it is none."""
    scored: list[ScoredPair] = records.from_table(ScoredPair, pq.read_table(folder / "scored.parquet"))
    known = pq.read_table(folder / "agreement.parquet").to_pylist() if data not in OWN else []
    category = {row["pair"]: row["category"] for row in known}
    looks = {row["pair"]: row for row in known if row["signal"] == "self"}
    for pair in scored:
        look = looks.get(pair.id, {})
        by_reward = pair.positive_under_positive is not None
        yield Held(
            data, wording, pair.id, pair.prompt_id, category.get(pair.id),
            truth(data, pair),
            len(pair.positive_ids), len(pair.negative_ids), not pair.positive_finished, not pair.negative_finished,
            pair.positive_under_positive - pair.positive_under_negative if by_reward else None,
            pair.negative_under_positive - pair.negative_under_negative if by_reward else None,
            pair.positive_reference if by_reward else None,
            pair.negative_reference if by_reward else None,
            look.get("points"), look.get("shown_first"), look.get("shown_second"),
        )  # fmt: skip


def truth(data: str, pair: ScoredPair) -> float:
    """By how much the first answer is the better one: 1 where people say so; happier; the refusal of the two."""
    both = (pair.positive_text, pair.negative_text)
    if data == "own":
        first, second = map(compound, both)
    elif data == "own_harm":
        first, second = (float(shipped().probability(text, pair.question) >= REFUSES) for text in both)
    else:
        first, second = 1.0, 0.0
    return first - second


def _points(difference: float) -> float:
    return 0.5 if difference == 0 else float(difference > 0)


SIGNALS: dict[str, Callable[[Held], float]] = {
    "R": lambda h: h.r_first - h.r_second,
    "R per token": lambda h: h.r_first / h.tokens_first - h.r_second / h.tokens_second,
    "log-prob": lambda h: h.plain_first - h.plain_second,
    "log-prob per token": lambda h: h.plain_first / h.tokens_first - h.plain_second / h.tokens_second,
    "longer": lambda h: h.tokens_first - h.tokens_second,
    "construction": lambda h: 1.0,
}
OF_THE_WORDING = ("R", "R per token")


def views(held: Sequence[Held]) -> dict[str, list[SignalAgreement]]:
    """Every signal's view of one data set under one wording."""
    if held[0].wording == JUDGE:
        return {JUDGE: [_view(h, JUDGE, h.judge, (h.shown_first, h.shown_second)) for h in held]}
    names = [name for name in SIGNALS if name != "construction" or held[0].data in OWN]
    return {name: [_view(h, name, _points(SIGNALS[name](h))) for h in held] for name in names}


def _view(h: Held, signal: str, points: float | None, looks: tuple = (None, None)) -> SignalAgreement:
    longer = h.tokens_first - h.tokens_second
    return SignalAgreement(h.pair, signal, signal, h.truth, longer, points, *looks, h.prompt, h.category)


def among(held: Sequence[Held]) -> dict[str, list[Held]]:
    """All pairs, and parts of them: by category, by whose answer is longer, by thirds of the size of R."""
    found = {"all": list(held)}
    for category in sorted({h.category for h in held} - {None}):
        found[category] = [h for h in held if h.category == category]
    if held[0].data == "human":
        found["first longer"] = [h for h in held if h.tokens_first > h.tokens_second]
        found["second longer"] = [h for h in held if h.tokens_first < h.tokens_second]
    if held[0].wording != JUDGE and held[0].data != "refusals":
        told = [h for h in held if h.truth]
        size = np.array([abs(SIGNALS["R"](h)) for h in told])
        part = np.searchsorted(np.quantile(size, [1 / 3, 2 / 3]), size)
        for which, name in enumerate(("small R", "middle R", "large R")):
            found[name] = [h for h, third in zip(told, part, strict=True) if third == which]
    return {name: members for name, members in found.items() if members}


def lines(held: Sequence[Held]) -> Iterator[dict]:
    """The rows of agreement.csv."""
    groups: dict[tuple[str, str], list[Held]] = {}
    for one in held:
        groups.setdefault((one.data, one.wording), []).append(one)
    for (data, wording), group in groups.items():
        for part, members in among(group).items():
            for signal, seen in views(members).items():
                if wording not in (FIRST, JUDGE) and signal not in OF_THE_WORDING and data not in OWN:
                    continue  # does not depend on the wording
                for row in accuracy_rows([seen], []):
                    metric = row.metric.partition("/")[0]
                    if metric in METRICS:
                        yield _line(data, wording, signal, part, metric, row.estimate)
    yield from _differences(groups)


def _differences(groups: dict[tuple[str, str], list[Held]]) -> Iterator[dict]:
    """How much oftener a signal is right than R under the first wording, on the human pairs that both have."""
    first = {view.pair: view.right for view in views(groups[("human", FIRST)])["R"]}
    for (data, wording), group in groups.items():
        for signal, seen in views(group).items() if data == "human" else ():
            if (wording, signal) != (FIRST, "R") and (wording in (FIRST, JUDGE) or signal in OF_THE_WORDING):
                both = [v.right - first[v.pair] for v in seen if v.points is not None and v.pair in first]
                yield _line(data, wording, signal, "all", "beyond R", mean_interval(both))


def _line(data: str, wording: str, signal: str, part: str, metric: str, e: Estimate) -> dict:
    return {
        "data": data, "wording": wording, "signal": signal, "among": part, "metric": metric,
        "n": e.n, "mean": e.value, "low": e.low, "high": e.high,
    }  # fmt: skip


def main(runs: Sequence[str]) -> None:
    if runs:
        named = [(*run.partition("=")[0].split(":"), Path(run.partition("=")[2])) for run in runs]
        held = [one for data, wording, folder in named for one in read(data, wording, folder)]
        kept = records.from_table(Held, pq.read_table(VALUES)) if VALUES.exists() else []
        held = [*(one for one in kept if one.data not in {data for data, _, _ in named}), *held]
        pq.write_table(records.to_table(Held, held), VALUES)
    found = list(lines(records.from_table(Held, pq.read_table(VALUES))))
    with AGREEMENT.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


if __name__ == "__main__":
    main(sys.argv[1:])
