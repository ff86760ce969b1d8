"""The tables of the comparison: collected from finished sweeps, and rendered from the collected file.

python experiments/tables.py collect main_comparison outputs/<sweep> [outputs/<sweep> ...]    # -> results.csv
python experiments/tables.py render main_comparison                               # -> README.md, between its markers
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dlma.report import markdown
from dlma.report.result_text import MARGIN, cell, change, gap_text, missed_text, p_text, same, unit
from dlma.statistics import intervals, significance
from dlma.statistics.format import bounded
from dlma.statistics.intervals import Estimate
from dlma.sweep import costs, curves, estimates, readings
from dlma.sweep.results import Result, Settings, by_row, label, over_seeds, read_csv
from dlma.sweep.settings import Setting
from experiments import pooled

HERE = Path(__file__).resolve().parent
TUNED = HERE.parent / "tuning" / "outcome.csv"
LINEAR = HERE / "linear.csv"  # the same runs read on a line in KL, as they were committed on 2026-11-25 and until 11-28
SUBJECT, LEVELS, REGISTERED = "dlma", (0.5, 1.0, 2.0), 1.0
Row = tuple[str, Settings, str]
BASE, PROMPTED = ("base", (), "base"), ("prompted", (), "prompted")
PAID = ("refused_safe", "perplexity", "tokens")
JUDGES = {"oracle_harmless": "harmless", "oracle_helpful": "helpful"}
SHOWN = {
    "kl": "KL, nats",
    "harmful": "answers with harm",
    "malformed": "malformed",
    "helpfulness": "helpfulness",
    "perplexity": "perplexity under the base",
    "tokens": "tokens",
    "refused_safe": "refusals of safe prompts",
    "skill_loss": "loss of the unrelated skill",
}


def results(rows: Sequence[Setting]) -> list[Result]:
    """Every setting's means and verdicts, the curves at each KL, and their differences from the subject's curve."""
    final = [row for row in rows if row.final]
    found = over_seeds(estimates.results(final, tested=[]))
    found = [one for one in found if one.metric in SHOWN or (one.judge in JUDGES and one.metric != "unparsed")]
    found += readings.results(curves.along_kl(rows), curves.metric_of(rows), SUBJECT, LEVELS)
    return found + costs.results(final)


def render(found: Sequence[Result]) -> str:
    """The Markdown of results.csv and of the tuning's outcome."""
    parts = [_matched, _differences, _registered, _paid, _tuned, _preferred, _costs, _all]
    return "\n\n".join(part(found) for part in parts)


def _matched(found: Sequence[Result]) -> str:
    read = [one for one in found if (one.metric, one.statistic, one.axis) == ("harmful", "mean", "kl")]
    gaps = _gaps(found, "harmful")
    cells = {(one.label, one.at): f"{cell(one)}, over {gap_text(gaps.get((one.label, one.at)))}" for one in read}
    missed = {one.label: one for one in found if (one.metric, one.statistic) == ("harmful", "missed")}
    rows = []
    for method in dict.fromkeys(one.label for one in read):
        values = [cells.get((method, at), "not reached") for at in LEVELS]
        rows.append([f"`{method}`", *values, missed_text(missed.get(method))])
    head = "Answers with a harmful sentence at the same KL to the base, and between which settings that was read:\n\n"
    heads = ["method", *(f"{level:g} nats" for level in LEVELS), "a setting left out is missed by"]
    return head + markdown.table(heads, rows)


def _gaps(found: Sequence[Result], metric: str) -> dict[tuple[str, float | None], Result]:
    return {(one.label, one.at): one for one in found if (one.metric, one.statistic) == (metric, "gap")}


def _differences(found: Sequence[Result]) -> str:
    gaps, rows = _gaps(found, "harmful"), []
    for one in _compared(found):
        both = [gaps.get((method, one.at)) for method in (one.label, SUBJECT)]
        read = [same(one, MARGIN, both), *map(gap_text, both)]
        rows.append([f"`{one.label}`", f"{one.at:g} nats", change(one), p_text(one.p_holm), *read])
    head = (
        f"The same, less that of `{SUBJECT}` (above 0: `{SUBJECT}` does less harm); p by Holm over this table. Within "
        f"{100 * MARGIN:g} points: two one-sided tests at 2.5 % each, which is the whole 95 % interval inside (yes) or "
        "outside (no); else neither a difference nor its absence is shown:\n\n"
    )
    within = f"within {100 * MARGIN:g} points"
    heads = ["method", "at", "difference", "p", within, "read over, nats", f"`{SUBJECT}` over"]
    return head + markdown.table(heads, rows)


def _compared(found: Sequence[Result]) -> list[Result]:
    """The differences along KL, method by method."""
    rows = by_row(one for one in found if (one.metric, one.statistic) == ("harmful", "difference")).values()
    return [one for row in rows for one in row]


def _registered(found: Sequence[Result]) -> str:
    """The plan's own reading and the two amended ones, at 1 nat: on a line in KL, in its root, on the fit."""
    now = {one.label: one for one in _compared(found) if one.at == REGISTERED}
    amended = _compared(read_csv(HERE / "results.csv"))
    lines = {one.label: one for one in amended if one.at == REGISTERED}
    planned = [one for one in _compared(read_csv(LINEAR)) if one.at == REGISTERED]
    least = significance.holm([pooled.least_p(one) for one in planned])
    rows = []
    for one, p in zip(planned, least, strict=True):
        rows.append([f"`{one.label}`", change(one), f"at least {p:.2f}", same(one, MARGIN)])
        rows[-1] += [change(lines[one.label]), p_text(lines[one.label].p_holm), same(lines[one.label], MARGIN)]
        rows[-1] += [change(now[one.label]), same(now[one.label], MARGIN)]
    within = f"within {100 * MARGIN:g} points"
    heads = ["method", "registered: on a line in KL", f"p, Holm over {len(planned)}", within]
    heads += [
        "amended: on lines in the root of KL",
        f"p, Holm over {len(amended)}",
        within,
        "and again: on the fit",
        within,
    ]
    head = (
        f"The reading that `plan.yaml` registered, beside the amended ones, less `{SUBJECT}`'s at {REGISTERED:g} nats. "
        "The registered one is of the same runs and was kept from before the amendment (`linear.csv`). Its own p were "
        "not kept, so they are bounded: by Holm over the least p that each interval allows. The intervals on lines do "
        "not hold what a line misses between two settings:\n\n"
    )
    return head + markdown.table(heads, rows)


def registered(method: str) -> Result:
    """The difference from `dlma` by the reading that plan.yaml registered."""
    (found,) = [one for one in _compared(read_csv(LINEAR)) if one.at == REGISTERED and one.method == method]
    return found


def at(metric: str, kl: float, method: str) -> Estimate:
    """What a method pays at a KL."""
    return pooled.unpaired(read_csv(HERE / "results.csv"), metric, kl)[method][0]


def paid(metric: str, kl: float, method: str) -> Estimate:
    """What a method pays at a KL besides, less what the subject pays; not paired, of a perplexity the logarithm."""
    one, other = at(metric, kl, method), at(metric, kl, SUBJECT)
    value, half = one.value - other.value, math.hypot(one.high - one.value, other.high - other.value)
    return Estimate(value, value - half, value + half, one.n, one.seeds)


def ratio(metric: str, kl: float, method: str) -> Estimate:
    """The same as a quotient to the subject's, of a metric whose logarithm was read."""
    return intervals.exponential(paid(metric, kl, method))


def _paid(found: Sequence[Result]) -> str:
    """What less harm may be paid in, at the same KL."""
    rows = [row for metric in PAID for kl in LEVELS[:2] for row in _paid_in(metric, kl)]
    head = (
        f"What may be paid for it at the same KL, and how much more than `{SUBJECT}` pays. Of these runs the values of "
        "each prompt were not kept, so that nothing here is paired: the intervals are made of those of the settings "
        "around the KL, which is wider than paired ones would be. Entropy was not kept at all:\n\n"
    )
    heads = ["method", "of", "at", "value", f"less `{SUBJECT}`'s", f"within {100 * MARGIN:g} points", "read over, nats"]
    return head + markdown.table(heads, rows)


def _paid_in(metric: str, kl: float) -> Iterator[list[str]]:
    for method, (e, low, high) in pooled.unpaired(read_csv(HERE / "results.csv"), metric, kl).items():
        value = intervals.exponential(e) if metric == curves.PERPLEXITY else e
        less = ["–", "–"]
        if method != SUBJECT:
            gap = paid(metric, kl, method)
            one = Result("", "", metric, gap.n, gap.value, gap.low, gap.high, statistic="difference")
            shown = f"×{bounded(intervals.exponential(gap), '')}" if metric == curves.PERPLEXITY else change(one)
            less = [shown, same(one, MARGIN)]
        told = [SHOWN[metric], f"{kl:g} nats", bounded(value, unit(metric))]
        yield [f"`{method}`", *told, *less, f"{low:.2f}–{high:.2f}"]


def own_points() -> dict[str, Row]:
    return _own_points(read_csv(HERE / "results.csv"))


def skill_losses() -> list[float]:
    """By how much more the unrelated skill is lost at each method's own point than by the base."""
    losses = {one.row: one.value for one in read_csv(HERE / "results.csv") if one.metric == "skill_loss"}
    return [losses[row] - losses[BASE] for row in own_points().values()]


def _own_points(found: Sequence[Result]) -> dict[str, Row]:
    """The row of each method at the beta that the label-free rule chose on validation prompts, by its method."""
    chosen = {line["method"]: float(line["beta"]) for line in csv.DictReader(TUNED.open()) if line["chosen"] == "1"}
    chosen["cd"] = chosen[SUBJECT]  # cd has no beta: its cells are one run
    points: dict[str, Row] = {}
    for method, told, arm in by_row(found):
        if method in chosen and dict(told).get("beta") == f"{chosen[method]:g}":
            points.setdefault(method, (method, told, arm))  # the recipe's learning rate stands first
    return points


def _tuned(found: Sequence[Result]) -> str:
    """Each method at its own point."""
    picked = {BASE: "base", PROMPTED: "base, prompted with p+"}
    picked |= {row: _name(row) for row in _own_points(found).values()}
    head = "Each method's own point, chosen without labels on validation prompts:\n\n"
    return head + _settings(found, picked)


def _name(row: Row) -> str:
    return f"`{'cd' if row[0] == 'cd' else label(*row)}`"


def _preferred(found: Sequence[Result]) -> str:
    """Wins, ties and losses of the subject's own point against the others' own points, and of all against the base."""
    cells = {(one.row, one.metric, one.versus, one.judge): 100 * one.value for one in found if one.judge}
    own = _own_points(found)
    rows = []
    fights = [(SUBJECT, rival) for rival in [*own, "base", "prompted"] if rival != SUBJECT]
    for method, against in [*fights, *((rival, "base") for rival in own if rival != SUBJECT)]:
        said = []
        for judge in JUDGES:
            shares = [cells.get((own[method], word, against, judge)) for word in ("win", "tie", "lose")]
            said.append(" / ".join(f"{share:.1f}" for share in shares) if None not in shares else "–")
        rows.append([f"`{method}`", f"`{against}`", *said])
    head = "Win / tie / lose in percent by the oracle, both orders, each method at its own point:\n\n"
    return head + markdown.table(["answers of", "against", *(f"by {name}" for name in JUDGES.values())], rows)


def _costs(found: Sequence[Result]) -> str:
    """What each method's own point cost to make; pairs are the same number for all."""
    own = _own_points(found)
    spent = [replace(one, settings=()) for row in own.values() for one in found if one.row == row]
    head = "What each method's own point cost to make, on the same prompts and pairs, evaluation left out:\n\n"
    return head + markdown.table(*costs.table(spent))


def _all(found: Sequence[Result]) -> str:
    """Every setting that was run; those of a method whose answers are the same are one row."""
    rows: dict[tuple, Row] = {}
    for row, own in by_row(_means(found)).items():
        if any(one.metric == "harmful" for one in own):
            rows.setdefault((row[0], tuple(one.value for one in own)), row)
    return "Every setting:\n\n" + _settings(found, {row: _name(row) for row in rows.values()})


def _means(found: Sequence[Result]) -> list[Result]:
    return [one for one in found if one.metric in SHOWN and one.statistic == "mean" and not one.axis]


def _settings(found: Sequence[Result], names: dict[Row, str]) -> str:
    cells = {(one.row, one.metric): one for one in _means(found)}
    rows = [[name, *(cell(cells.get((row, metric))) for metric in SHOWN)] for row, name in names.items()]
    return markdown.table(["setting", *SHOWN.values()], rows)
