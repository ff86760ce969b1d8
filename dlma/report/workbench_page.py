"""Prompt pairs side by side: what each does to a sample of answers, as a table, a CSV and a page.

The ranking uses no truth. Where one is known it stands in columns of its own, and says how far to trust the ranking.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np
from rich.markup import escape as plain

from dlma import csv_text
from dlma.checks.alerts import Alerts, similarity
from dlma.checks.margin_facts import margin_facts, spearman
from dlma.metrics.summary import distinct_bigrams
from dlma.records import ScoredPair
from dlma.report import charts as charts_of
from dlma.report import run_page
from dlma.report.terminal import simple_table
from dlma.screen import Console
from dlma.statistics.format import bounded, interval, number
from dlma.statistics.intervals import Estimate, mean_interval, share_interval

Measures = dict[str, Estimate | None]

# name: (what it says, unit)
MEASURES = {
    "separation": ("mean of R: how far the two sides pull the model apart", "nats"),
    "spread": ("standard deviation of R", "nats"),
    "clarity": ("mean R over its standard deviation", ""),
    "kl_positive": ("KL of the positive side from the negative, per answer", "nats"),
    "kl_negative": ("KL of the negative side from the positive, per answer", "nats"),
    "difference": ("adjacent token pairs that a pair's two answers do not share", "share"),
    "distinct_2": ("distinct word pairs in an answer", "share"),
    "refusal_positive": ("refusals under the positive side", "share"),
    "refusal_negative": ("refusals under the negative side", "share"),
    "longer": ("positive answer longer by", "tokens"),
    "length_bias": ("rank correlation of R with the difference in length", ""),
    "accuracy": ("sign(R) names the better answer, no ties", "share"),
    "construction": ("the positive answer is the better one, no ties", "share"),
    "rank_correlation": ("rank correlation of R with the truth", ""),
}
SHOWN = ("separation", "construction", "accuracy", "spread", "difference", "longer", "length_bias", "refusal_positive")
SHORT = {
    "separation": "mean R",
    "spread": "sd R",
    "clarity": "mean/sd",
    "kl_positive": "KL(+|-)",
    "kl_negative": "KL(-|+)",
    "difference": "differ",
    "refusal_positive": "refuse+",
    "longer": "longer",
    "length_bias": "R~len",
    "construction": "+better",
    "accuracy": "sign(R)",
}


@dataclass(frozen=True)
class MeasuredPair:
    """A prompt pair and its measures; `gap` is its true strength where the wording is of the lab's grammar."""

    name: str
    positive: str
    negative: str
    measures: Measures
    gap: float | None = None


def measures(pairs: Sequence[ScoredPair], truth: Sequence[float | None], alerts: Alerts) -> Measures:
    """All of MEASURES on pairs scored by self-reward; None where there is no truth, or nothing to correlate."""
    margins = np.array([pair.margin for pair in pairs])
    longer = [len(pair.positive_ids) - len(pair.negative_ids) for pair in pairs]
    facts = margin_facts(margins.tolist(), truth, None, None)

    def mean(value: Callable[[ScoredPair], float]) -> Estimate:
        return mean_interval([value(pair) for pair in pairs])

    texts = [text for pair in pairs for text in (pair.positive_text, pair.negative_text)]
    distinct = [value for value in map(distinct_bigrams, texts) if value is not None]
    return {
        "separation": facts.mean,
        "spread": spread(margins),
        "clarity": clarity(margins),
        "kl_positive": mean(lambda p: p.positive_under_positive - p.positive_under_negative),
        "kl_negative": mean(lambda p: p.negative_under_negative - p.negative_under_positive),
        "difference": mean(lambda p: 1 - similarity(p.positive_ids, p.negative_ids)),
        "distinct_2": mean_interval(distinct) if distinct else None,
        "refusal_positive": share_interval([alerts.refuses(p.positive_text) for p in pairs]),
        "refusal_negative": share_interval([alerts.refuses(p.negative_text) for p in pairs]),
        "longer": mean_interval(longer),
        "length_bias": spearman(list(zip(margins.tolist(), longer))),
        "accuracy": facts.sign_accuracy,
        "construction": facts.construction_accuracy,
        "rank_correlation": facts.spearman,
    }


def spread(values: np.ndarray) -> Estimate:
    """The standard deviation, with the square roots of the variance's t interval."""
    square = mean_interval((values - values.mean()) ** 2 * len(values) / max(1, len(values) - 1))
    return replace(square, **{name: math.sqrt(max(0.0, getattr(square, name))) for name in ("value", "low", "high")})


def clarity(values: np.ndarray) -> Estimate | None:
    """Mean over standard deviation, with the delta method's t interval; None where all values are equal."""
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    if sd == 0:
        return None
    gap = values - mean
    noise = mean_interval(gap / sd - mean * (gap**2 - (gap**2).mean()) / (2 * sd**3))
    return Estimate(mean / sd, mean / sd + noise.low, mean / sd + noise.high, noise.n)


def agreement(entries: Sequence[MeasuredPair], by: str) -> Estimate | None:
    """Spearman's rho over the pairs of a measure and the true strength; None where fewer than four are known."""
    return spearman([(entry.measures[by].value, entry.gap) for entry in measured(entries, by) if entry.gap is not None])


def measured(entries: Sequence[MeasuredPair], by: str) -> list[MeasuredPair]:
    """Those that have a value of a measure."""
    return [entry for entry in entries if entry.measures[by] is not None]


def ranked(entries: Sequence[MeasuredPair], by: str) -> list[MeasuredPair]:
    """The highest value of a measure first, entries without one last."""
    known = measured(entries, by)
    return sorted(known, key=lambda e: -e.measures[by].value) + [e for e in entries if e.measures[by] is None]


def csv_bytes(entries: Sequence[MeasuredPair]) -> bytes:
    """workbench.csv: a line per pair in order of rank; each measure with its 95 % interval over prompts."""
    ends = ("", "_low", "_high")
    head = ["rank", "prompts", "positive", "negative", "true_gap", "n"]
    heads, rows = [*head, *(name + end for name in MEASURES for end in ends)], []
    for rank, entry in enumerate(entries, start=1):
        cells = [cell for name in MEASURES for cell in _cells(entry.measures[name])]
        gap = "" if entry.gap is None else repr(round(entry.gap, 6))
        n = entry.measures["separation"].n
        rows.append([rank, entry.name, entry.positive, entry.negative, gap, n, *cells])
    return csv_text.table(heads, rows)


def _cells(estimate: Estimate | None) -> list[str]:
    bounds = (math.nan,) * 3 if estimate is None else (estimate.value, estimate.low, estimate.high)
    return ["" if math.isnan(bound) else repr(bound) for bound in bounds]


def columns(entries: Sequence[MeasuredPair], rank_by: str) -> list[str]:
    """The measures that the tables show: the one that ranks, then those that are known for some pair."""
    known = [name for name in SHOWN if any(entry.measures[name] is not None for entry in entries)]
    return list(dict.fromkeys([rank_by, *known]))


def note(entries: Sequence[MeasuredPair], rank_by: str) -> str:
    """What is known of the ranking itself."""
    found = agreement(entries, rank_by)
    if found is None:
        return f"Ranked by {rank_by}, without any truth."
    return (
        f"Ranked by {rank_by}, without any truth; its rank correlation with the grammar's true strength is "
        f"{bounded(found, '')} over {found.n} pairs."
    )


def print_ranking(entries: Sequence[MeasuredPair], rank_by: str, head: str, console: Console | None = None) -> None:
    """The pairs in order of rank, with the main measures."""
    console = console or Console(soft_wrap=True)
    table = simple_table(f"prompt pairs on {head}")
    table.add_column("", justify="right", style="dim")
    widest = max(len(entry.name) for entry in entries)
    table.add_column("prompts", no_wrap=True, min_width=widest)
    known = columns(entries, rank_by)
    names = known[: max(2, (console.width - widest - 5) // 10)]  # a number takes 7 characters, and 3 of padding
    for name in names:
        table.add_column(SHORT[name], justify="right", no_wrap=True)
    for rank, entry in enumerate(entries, start=1):
        values = [entry.measures[name] for name in names]
        shown = ["–" if v is None else number(v.value, MEASURES[n][1]) for n, v in zip(names, values)]
        table.add_row(str(rank), plain(entry.name), *shown)
    console.print(table)
    for name in names:
        console.print(f"{SHORT[name]}: {MEASURES[name][0]}", style="dim")
    if len(names) < len(known):
        console.print("A wider terminal shows more; every measure is in workbench.csv.", style="dim")
    console.print(note(entries, rank_by))


def render(entries: Sequence[MeasuredPair], rank_by: str, *, title: str, meta: str, is_lab: bool) -> bytes:
    """The page: the ranking as a figure, against the truth where there is one, and the table of all measures."""
    sections = [("ranking", "Ranking", _ranking(entries, rank_by)), ("measures", "All measures", _table(entries))]
    lines = [run_page.LAB_NOTE] if is_lab else []
    slots = {
        "TITLE": escape(title),
        "META": escape(meta),
        "HEADLINE": escape(note(entries, rank_by)),
        "CALLOUTS": "".join(f'<div class="callout"><p>{escape(line)}</p></div>' for line in lines),
        "FOOTER": escape("Intervals are 95 %, two-sided, over prompts; nothing was trained."),
        "ANSWERS": run_page.embed({"arms": ["base"], "rows": []}),
    }
    return run_page.page(slots, sections)


def _ranking(entries: Sequence[MeasuredPair], rank_by: str) -> str:
    label, unit = MEASURES[rank_by]
    known, against = measured(entries, rank_by), "construction"
    chart = charts_of.ranking([(e.name, e.measures[rank_by]) for e in known], f"{SHORT[rank_by]} {unit}".strip(), label)
    spots = [(e.name, e.measures[rank_by].value, e.measures[against]) for e in known if e.measures[against]]
    right = ""
    if spots:
        cloud = charts_of.scatter(spots, SHORT[rank_by], MEASURES[against][0], "The ranking against the truth")
        right = f"<div><h3>{escape(MEASURES[against][0].capitalize())}</h3>{cloud}</div>"
    return (
        f'<p class="lead">{escape(label.capitalize())}; whiskers are 95 % intervals over prompts.</p>'
        f'<div class="grid2"><div><h3>{escape(SHORT[rank_by])}</h3>{chart}</div>{right}</div>'
    )


def _table(entries: Sequence[MeasuredPair]) -> str:
    names = [name for name in MEASURES if any(entry.measures[name] is not None for entry in entries)]
    heads = "".join(
        f'<th class="num" title="{escape(MEASURES[n][0])}">{escape(n.replace("_", " "))}</th>' for n in names
    )
    body = "".join(
        f'<tr><td class="num">{rank}</td><td><b>{escape(entry.name)}</b><br>{escape(_cut(entry.positive))}<br>'
        f"{escape(_cut(entry.negative))}</td>{_gap(entry.gap)}"
        f"{''.join(_value(entry.measures[n], n) for n in names)}</tr>"
        for rank, entry in enumerate(entries, start=1)
    )
    said = "".join(f"<li><b>{escape(n.replace('_', ' '))}</b>: {escape(MEASURES[n][0])}</li>" for n in names)
    return (
        f'<div class="scroll"><table><thead><tr><th class="num">rank</th><th>prompts, positive, negative</th>'
        f'<th class="num">true strength</th>{heads}</tr></thead><tbody>{body}</tbody></table></div><ul>{said}</ul>'
    )


def _cut(text: str, limit: int = 80) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _gap(gap: float | None) -> str:
    return f'<td class="num">{"–" if gap is None else number(gap, "")}</td>'


def _value(estimate: Estimate | None, name: str) -> str:
    if estimate is None:
        return '<td class="num">–</td>'
    unit = MEASURES[name][1]
    value, bounds = number(estimate.value, unit), interval(estimate, unit)
    return f'<td class="num"><b>{value}</b><span class="bounds">{bounds}</span></td>'
