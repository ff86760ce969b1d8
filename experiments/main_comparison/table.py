"""The tables of the comparison: collected from finished sweeps, and rendered from the collected file.

python experiments/tables.py collect main_comparison outputs/<sweep> [outputs/<sweep> ...]    # -> results.csv
python experiments/tables.py render main_comparison                               # -> README.md, between its markers
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scipy.special import stdtr, stdtrit

from dlma.report import markdown
from dlma.report.tables import MARGIN, cell, change, p_text, same
from dlma.runs import cells as run_folders
from dlma.statistics import significance
from dlma.statistics.format import bounded
from dlma.sweep import costs, curves, estimates
from dlma.sweep.results import Result, Settings, by_row, label, over_seeds, read_csv
from dlma.sweep.settings import settings

HERE = Path(__file__).resolve().parent
TUNED = HERE.parent / "tuning" / "outcome.csv"
LINEAR = HERE / "linear.csv"  # the same runs read on a line in KL, as they were committed on 2026-11-25 and until 11-28
SUBJECT, LEVELS, REGISTERED = "dlma", (0.5, 1.0, 2.0), 1.0
Row = tuple[str, Settings, str]
BASE, PROMPTED = ("base", (), "base"), ("prompted", (), "prompted")
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


def collect(*folders: Path) -> list[Result]:
    """Every setting's means and verdicts, the curves at each KL, and their differences from the subject's curve."""
    rows = settings(run_folders.collect(folders))
    final = [row for row in rows if row.final]
    found = over_seeds(estimates.results(final, tested=[]))
    found = [one for one in found if one.metric in SHOWN or (one.judge in JUDGES and one.metric != "unparsed")]
    found += curves.results(curves.along_kl(rows), curves.metric_of(rows), SUBJECT, LEVELS)
    return found + costs.results(final)


def render(found: Sequence[Result]) -> str:
    """The Markdown of results.csv and of the tuning's outcome."""
    parts = [_matched, _differences, _registered, _tuned, _preferred, _costs, _all]
    return "\n\n".join(part(found) for part in parts)


def _matched(found: Sequence[Result]) -> str:
    read = [one for one in found if (one.metric, one.statistic, one.axis) == ("harmful", "mean", "kl")]
    cells = {(one.label, one.at): cell(one) for one in read}
    methods = dict.fromkeys(one.label for one in read)
    rows = [[f"`{method}`", *(cells.get((method, at), "not reached") for at in LEVELS)] for method in methods]
    head = "Answers with a harmful sentence at the same KL to the base:\n\n"
    return head + markdown.table(["method", *(f"{level:g} nats" for level in LEVELS)], rows)


def _differences(found: Sequence[Result]) -> str:
    rows = [
        [f"`{one.label}`", f"{one.at:g} nats", change(one), p_text(one.p_holm), same(one, MARGIN)]
        for one in _compared(found)
    ]
    head = (
        f"The same, less that of `{SUBJECT}` (above 0: `{SUBJECT}` does less harm); p by Holm over this table. Within "
        f"{100 * MARGIN:g} points: two one-sided tests at 2.5 % each, which is the whole 95 % interval inside; else "
        "neither a difference nor its absence is shown:\n\n"
    )
    return head + markdown.table(["method", "at", "difference", "p", f"within {100 * MARGIN:g} points"], rows)


def _compared(found: Sequence[Result]) -> list[Result]:
    """The differences along KL, method by method."""
    rows = by_row(one for one in found if (one.metric, one.statistic) == ("harmful", "difference")).values()
    return [one for row in rows for one in row]


def _registered(found: Sequence[Result]) -> str:
    """The plan's own reading beside the amended one: a line in KL, at 1 nat alone, Holm over its comparisons."""
    amended = {one.label: one for one in _compared(found) if one.at == REGISTERED}
    planned = [one for one in _compared(read_csv(LINEAR)) if one.at == REGISTERED]
    least = significance.holm([_least_p(one) for one in planned])
    rows = []
    for one, p in zip(planned, least, strict=True):
        now = amended[one.label]
        rows.append([f"`{one.label}`", change(one), f"at least {p:.2f}", same(one, MARGIN)])
        rows[-1] += [change(now), p_text(now.p_holm), same(now, MARGIN)]
    within = f"within {100 * MARGIN:g} points"
    heads = ["method", "registered: on a line in KL", f"p, Holm over {len(planned)}", within]
    heads += ["amended: in the root of KL", f"p, Holm over {len(_compared(found))}", within]
    head = (
        f"The reading that `plan.yaml` registered, beside the amended one, less `{SUBJECT}`'s at {REGISTERED:g} nats. "
        "The registered one is of the same runs and was kept from before the amendment (`linear.csv`). Its own p were "
        "not kept, so they are bounded: by Holm over the least p that each interval allows:\n\n"
    )
    return head + markdown.table(heads, rows)


def _least_p(r: Result) -> float:
    """The least two-sided p that an interval over n prompts and k seeds allows.

    Its square is a sum of two parts, each with its own Student's t (statistics.crossed_interval), so that p lies
    between those that either part alone would give.
    """
    share = abs(r.value) / ((r.high - r.low) / 2)
    freedoms = (len(r.seeds) - 1, r.n - 1)
    return min(2 * float(stdtr(df, -share * float(stdtrit(df, 0.975)))) for df in freedoms)


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
    rows = [[name, *(_cell(cells.get((row, metric))) for metric in SHOWN)] for row, name in names.items()]
    return markdown.table(["setting", *SHOWN.values()], rows)


def _cell(one: Result | None) -> str:
    of_share = one is not None and one.metric == "refused_safe"  # beyond the summary's metrics, whose units are known
    return bounded(one.estimate, "share") if of_share else cell(one)
