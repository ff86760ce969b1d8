"""The tables of the comparison: collected from finished sweeps, and rendered from the collected file.

python experiments/tables.py collect main_comparison outputs/<sweep> [outputs/<sweep> ...]    # -> results.csv
python experiments/tables.py render main_comparison                               # -> README.md, between its markers
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from dlma.evaluation.statistics import Estimate
from dlma.report import sweep, sweep_cells, sweep_frontier, sweep_table
from dlma.report.summary import interval, number
from dlma.report.sweep_table import Result
from dlma.report.sweep_text import p_text

HERE = Path(__file__).resolve().parent
RESULTS, README, TUNED = HERE / "results.csv", HERE / "README.md", HERE.parent / "tuning" / "outcome.csv"
START, END = "<!-- results:start -->\n", "<!-- results:end -->"
SUBJECT, LEVELS = "dlma", (0.5, 1.0, 2.0)
SHOWN = {
    "kl": ("KL, nats", ""),
    "harmful": ("answers with harm", "share"),
    "malformed": ("malformed", "share"),
    "helpfulness": ("helpfulness", ""),
    "perplexity": ("perplexity under the base", ""),
    "tokens": ("tokens", ""),
}


def collect(*folders: Path) -> None:
    """Every setting's means, the curves at each KL, and their differences from the subject's curve."""
    rows = [row for row in sweep.settings(sweep_cells.collect(folders)) if row.final]
    found = [r for r in sweep_table.results(rows, tested=[]) if r.metric in SHOWN and "+" in r.seed]
    found += sweep_frontier.results(rows, SUBJECT, LEVELS)
    RESULTS.write_bytes(sweep_table.write_csv(found))


def render() -> str:
    """The Markdown of results.csv and of the tuning's outcome."""
    found = sweep_table.read_csv(RESULTS)
    return "\n\n".join([_matched(found), _differences(found), _tuned(found), _all(found)])


def _matched(found: Sequence[Result]) -> str:
    heads = [f"harmful at kl {level:g}" for level in LEVELS]
    methods = dict.fromkeys(r.method for r in found if r.metric in heads)
    lines = ["Answers with a harmful sentence at the same KL to the base:", ""]
    lines += _head(["method", *(f"{level:g} nats" for level in LEVELS)])
    for method in methods:
        cells = {r.metric: r for r in found if r.method == method}
        lines.append(_row([f"`{method}`", *(_cell(cells.get(head), "share") for head in heads)]))
    return "\n".join(lines)


def _differences(found: Sequence[Result]) -> str:
    lines = [
        f"The same, less that of `{SUBJECT}` (above 0: `{SUBJECT}` does less harm); p by Holm over this table:",
        "",
    ]
    lines += _head(["method", "at", "difference, points", "p"])
    ending = f" minus {SUBJECT}"
    for r in found:
        if r.metric.startswith("harmful at kl") and r.metric.endswith(ending):
            level = r.metric.removesuffix(ending).rpartition(" ")[2]
            points = [100 * x for x in (r.mean, r.low, r.high)]
            text = f"{points[0]:+.1f} [{points[1]:+.1f}, {points[2]:+.1f}]"
            lines.append(_row([f"`{r.method}`", f"{level} nats", text, p_text(r.p_holm)]))
    return "\n".join(lines)


def _tuned(found: Sequence[Result]) -> str:
    """Each method at the beta that the label-free rule chose on validation prompts."""
    chosen = {row["method"]: row["beta"] for row in csv.DictReader(TUNED.open()) if row["chosen"] == "1"}
    labels = {f"{method}, beta={beta}": f"`{method}`, beta {beta}" for method, beta in chosen.items()}
    picked = {"base": "base", "prompted": "base, prompted with p+"}
    for label in dict.fromkeys(r.method for r in found):
        if label.split(", lr=")[0] in labels and ("lr=" not in label or "lr=4.5e-05" in label):
            picked[label] = labels[label.split(", lr=")[0]]
    return "Each method's own point, chosen without labels on validation prompts:\n\n" + _settings(found, picked)


def _all(found: Sequence[Result]) -> str:
    """Every setting that was run."""
    labels = [r.method for r in found if r.metric == "harmful"]
    return "Every setting:\n\n" + _settings(found, {label: f"`{label}`" for label in dict.fromkeys(labels)})


def _settings(found: Sequence[Result], names: dict[str, str]) -> str:
    lines = _head(["setting", *(label for label, _ in SHOWN.values())])
    for label, name in names.items():
        cells = {r.metric: r for r in found if r.method == label}
        lines.append(_row([name, *(_cell(cells.get(metric), unit) for metric, (_, unit) in SHOWN.items())]))
    return "\n".join(lines)


def _cell(r: Result | None, unit: str) -> str:
    if r is None or math.isnan(r.mean):
        return "not reached"
    return f"{number(r.mean, unit)} {interval(Estimate(r.mean, r.low, r.high, r.n), unit)}"


def _head(names: Sequence[str]) -> list[str]:
    return [_row(names), "|" + "---|" * len(names)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_readme(text: str) -> None:
    """Put the text between the README's markers."""
    before, rest = README.read_text().split(START)
    README.write_text(before + START + text + "\n" + END + rest.split(END)[1])
