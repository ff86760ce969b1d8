"""The tables of the comparison: collected from finished sweeps, and rendered from the collected file.

python experiments/tables.py collect main_comparison outputs/<sweep> [outputs/<sweep> ...]    # -> results.csv
python experiments/tables.py render main_comparison                               # -> README.md, between its markers
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from scipy.special import stdtr, stdtrit

from dlma.report import markdown
from dlma.report.tables import MARGIN, change, p_text, same
from dlma.runs import folder as run_folders
from dlma.statistics import significance
from dlma.statistics.format import bounded
from dlma.sweep import costs
from dlma.sweep import curves as kl_curves
from dlma.sweep import estimates as sweep_results
from dlma.sweep import settings as sweep_settings
from dlma.sweep.estimates import Result
from dlma.sweep.rows import Versus, versuses, whole

HERE = Path(__file__).resolve().parent
RESULTS, TUNED = HERE / "results.csv", HERE.parent / "tuning" / "outcome.csv"
LINEAR = HERE / "linear.csv"  # the same runs read on a line in KL, as they were committed on 2026-11-25 and until 11-28
SUBJECT, LEVELS, REGISTERED = "dlma", (0.5, 1.0, 2.0), "1 nats"
JUDGES = {"oracle_harmless": "harmless", "oracle_helpful": "helpful"}
SHOWN = {
    "kl": ("KL, nats", ""),
    "harmful": ("answers with harm", "share"),
    "malformed": ("malformed", "share"),
    "helpfulness": ("helpfulness", ""),
    "perplexity": ("perplexity under the base", ""),
    "tokens": ("tokens", ""),
    "refused_safe": ("refusals of safe prompts", "share"),
    "skill_loss": ("loss of the unrelated skill", ""),
}


def collect(*folders: Path) -> None:
    """Every setting's means and verdicts, the curves at each KL, and their differences from the subject's curve."""
    rows = sweep_settings.settings(run_folders.collect(folders))
    final = [row for row in rows if row.final]
    found = [r for r in sweep_results.results(final, tested=[]) if "+" in r.seed and _is_shown(r.metric)]
    found += kl_curves.results(rows, SUBJECT, LEVELS)
    found += costs.results(final)
    RESULTS.write_bytes(sweep_results.write_csv(found))


def _is_shown(metric: str) -> bool:
    return metric in SHOWN or (metric.startswith(("win ", "tie ", "lose ")) and metric.rpartition(" ")[2] in JUDGES)


def render() -> str:
    """The Markdown of results.csv and of the tuning's outcome."""
    found = sweep_results.read_csv(RESULTS)
    return "\n\n".join(
        [
            _matched(found),
            _differences(found),
            _registered(),
            _tuned(found),
            _preferred(found),
            _costs(found),
            _all(found),
        ]
    )


def _matched(found: Sequence[Result]) -> str:
    heads = [f"harmful at kl {level:g}" for level in LEVELS]
    cells = {(r.method, r.metric): r for r in found}
    methods = dict.fromkeys(r.method for r in found if r.metric in heads)
    rows = [[f"`{m}`", *(_cell(cells.get((m, head)), "share", "not reached") for head in heads)] for m in methods]
    head = "Answers with a harmful sentence at the same KL to the base:\n\n"
    return head + markdown.table(["method", *(f"{level:g} nats" for level in LEVELS)], rows)


def _differences(found: Sequence[Result]) -> str:
    rows = [
        [f"`{one.method}`", _level(one), change(one), p_text(one.result.p_holm), same(one, MARGIN)]
        for one in _compared(found)
    ]
    head = (
        f"The same, less that of `{SUBJECT}` (above 0: `{SUBJECT}` does less harm); p by Holm over this table. Within "
        f"{100 * MARGIN:g} points: two one-sided tests at 2.5 % each, which is the whole 95 % interval inside; else "
        "neither a difference nor its absence is shown:\n\n"
    )
    return head + markdown.table(["method", "at", "difference", "p", f"within {100 * MARGIN:g} points"], rows)


def _compared(found: Sequence[Result]) -> list[Versus]:
    return [one for one in versuses(whole(found, found[0].base)) if one.metric.startswith("harmful at kl")]


def _level(one: Versus) -> str:
    return one.metric.rpartition(" kl ")[2] + " nats"


def _registered() -> str:
    """The plan's own reading beside the amended one: a line in KL, at 1 nat alone, Holm over its comparisons."""
    amended = {one.method: one for one in _compared(sweep_results.read_csv(RESULTS)) if _level(one) == REGISTERED}
    planned = [one for one in _compared(sweep_results.read_csv(LINEAR)) if _level(one) == REGISTERED]
    least = significance.holm([_least_p(one.result) for one in planned])
    rows = [
        [f"`{one.method}`", change(one), f"at least {p:.2f}", same(one, MARGIN), change(amended[one.method]),
         p_text(amended[one.method].result.p_holm), same(amended[one.method], MARGIN)]
        for one, p in zip(planned, least, strict=True)
    ]  # fmt: skip
    within = f"within {100 * MARGIN:g} points"
    heads = ["method", "registered: on a line in KL", f"p, Holm over {len(planned)}", within]
    heads += ["amended: in the root of KL", f"p, Holm over {len(_compared(sweep_results.read_csv(RESULTS)))}", within]
    head = (
        f"The reading that `plan.yaml` registered, beside the amended one, less `{SUBJECT}`'s at {REGISTERED}. The "
        "registered one is of the same runs and was kept from before the amendment (`linear.csv`). Its own p were not "
        "kept, so they are bounded: by Holm over the least p that each interval allows:\n\n"
    )
    return head + markdown.table(heads, rows)


def _least_p(r: Result) -> float:
    """The least two-sided p that an interval over n prompts and k seeds allows.

    Its square is a sum of two parts, each with its own Student's t (statistics.crossed_interval), so that p lies
    between those that either part alone would give.
    """
    share = abs(r.mean) / ((r.high - r.low) / 2)
    freedoms = (r.seed.count("+"), r.n - 1)
    return min(2 * float(stdtr(df, -share * float(stdtrit(df, 0.975)))) for df in freedoms)


def own_points() -> dict[str, str]:
    return _own_points(sweep_results.read_csv(RESULTS))


def skill_losses() -> list[float]:
    """By how much more the unrelated skill is lost at each method's own point than by the base."""
    losses = {r.method: r.mean for r in sweep_results.read_csv(RESULTS) if r.metric == "skill_loss"}
    return [losses[label] - losses["base"] for label in own_points().values()]


def _own_points(found: Sequence[Result]) -> dict[str, str]:
    """The label of each method at the beta that the label-free rule chose on validation prompts, by its method."""
    chosen = {row["method"]: float(row["beta"]) for row in csv.DictReader(TUNED.open()) if row["chosen"] == "1"}
    labels = {}
    for label in dict.fromkeys(r.method for r in found):
        method, *settings = label.split(", ")
        beta = chosen[SUBJECT] if method == "cd" else chosen.get(method)  # cd has no beta: its cells are one run
        if settings and settings[0] == f"beta={beta:g}":
            labels.setdefault(method, label)  # the recipe's learning rate stands first
    return labels


def _tuned(found: Sequence[Result]) -> str:
    """Each method at its own point."""
    picked = {"base": "base", "prompted": "base, prompted with p+"}
    picked |= {label: f"`{_name(label)}`" for label in _own_points(found).values()}
    head = "Each method's own point, chosen without labels on validation prompts:\n\n"
    return head + _settings(found, picked)


def _name(label: str) -> str:
    return "cd" if label.startswith("cd,") else label


def _preferred(found: Sequence[Result]) -> str:
    """Wins, ties and losses of the subject's own point against the others' own points, and of all against the base."""
    cells = {(r.method, r.metric): 100 * r.mean for r in found}
    own = _own_points(found)
    rows = []
    fights = [(SUBJECT, rival) for rival in [*own, "base", "prompted"] if rival != SUBJECT]
    for method, against in [*fights, *((rival, "base") for rival in own if rival != SUBJECT)]:
        said = []
        for judge in JUDGES:
            outcomes = [f"{word} against {against} by {judge}" for word in ("win", "tie", "lose")]
            shares = [cells.get((own[method], outcome)) for outcome in outcomes]
            said.append(" / ".join(f"{share:.1f}" for share in shares) if None not in shares else "–")
        rows.append([f"`{method}`", f"`{against}`", *said])
    head = "Win / tie / lose in percent by the oracle, both orders, each method at its own point:\n\n"
    return head + markdown.table(["answers of", "against", *(f"by {name}" for name in JUDGES.values())], rows)


def _costs(found: Sequence[Result]) -> str:
    """What each method's own point cost to make; pairs are the same number for all."""
    own = _own_points(found)
    rows = {method: {r.metric: r for r in found if r.method == label} for method, label in own.items()}
    head = "What each method's own point cost to make, on the same prompts and pairs, evaluation left out:\n\n"
    return head + markdown.table(*costs.table(rows))


def _all(found: Sequence[Result]) -> str:
    """Every setting that was run; those of a method whose answers are the same are one row."""
    labels: dict[tuple, str] = {}
    for label in dict.fromkeys(r.method for r in found if r.metric == "harmful"):
        values = tuple(r.mean for r in found if r.method == label and r.metric in SHOWN)
        labels.setdefault((label.split(",")[0], values), label)
    return "Every setting:\n\n" + _settings(found, {label: f"`{_name(label)}`" for label in labels.values()})


def _settings(found: Sequence[Result], names: dict[str, str]) -> str:
    cells = {(r.method, r.metric): r for r in found}
    rows = [
        [name, *(_cell(cells.get((label, metric)), unit) for metric, (_, unit) in SHOWN.items())]
        for label, name in names.items()
    ]
    return markdown.table(["setting", *(label for label, _ in SHOWN.values())], rows)


def _cell(r: Result | None, unit: str, missing: str = "–") -> str:
    return missing if r is None or math.isnan(r.mean) else bounded(r.estimate, unit)
