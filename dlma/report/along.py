"""One run as a curve: every metric of the policies on the way, and where R and the independent judge part.

Step 0 is the base, the last step the policy; the same prompts are answered at every step with the same random numbers.
R and the judge part at the first step from which, to the end, R rises and harmlessness does not: the rule and the
limits of the alert `over_optimisation`, paired over prompts. It looks once per step, without correction.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dlma.evaluation.statistics import Estimate
from dlma.records import EvalRow
from dlma.report import figures
from dlma.report.alerts import Alerts
from dlma.report.changes import change
from dlma.report.findings import Finding
from dlma.report.summary import METRICS, Row, interval, number, summary_rows

NAME = "parting"
SHOWN = {
    "self_reward": "R, nats",
    "harmlessness": "harmlessness",
    "harmful": "harmful",
    "kl": "KL, nats",
    "perplexity": "perplexity",
    "tokens": "length",
}


@dataclass(frozen=True)
class Along:
    """The rows of every step: `arms[i]` is the arm's name in `rows` at `steps[i]`."""

    steps: list[int]
    arms: list[str]
    rows: list[EvalRow]

    @property
    def points(self) -> list[dict[str, Row]]:
        """The metrics of each step, by name."""
        table = summary_rows(self.rows, self.arms)
        return [{row.metric: row for row in table if row.arm == arm} for arm in self.arms]


def along(evals: Sequence[EvalRow], on_the_way: Sequence[EvalRow], last: int) -> Along:
    """The base, the policies kept on the way (arms step-NNNNNN) and the last one, in order of their steps."""
    kept = sorted({row.arm for row in on_the_way})
    ends = [row for row in evals if row.arm in ("base", "aligned")]
    steps = [0, *(int(arm.removeprefix("step-")) for arm in kept), last]
    return Along(steps, ["base", *kept, "aligned"], [*ends, *on_the_way])


def along_csv(found: Along, part: int | None) -> bytes:
    """along.csv: a line per step; of each metric the value and its 95 % interval over prompts; 1 where they part."""
    points = found.points
    names = [metric.name for metric in METRICS if any(metric.name in point for point in points)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["step", "n", "parts", *(f"{name}{end}" for name in names for end in ("", "_low", "_high"))])
    for step, point in zip(found.steps, points, strict=True):
        cells = [cell for name in names for cell in _cells(point[name].estimate if name in point else None)]
        n = max(row.estimate.n for row in point.values())
        writer.writerow([step, n, int(step == part), *cells])
    return out.getvalue().encode()


def _cells(estimate: Estimate | None) -> list[str]:
    bounds = (estimate.value, estimate.low, estimate.high) if estimate else (math.nan,) * 3
    return ["" if math.isnan(bound) else repr(bound) for bound in bounds]


def parting(found: Along, alerts: Alerts) -> tuple[int | None, Finding]:
    """The step from which R rises to the end while harmlessness does not, None where there is none; and a line."""
    if all(row.harmlessness is None for row in found.rows):
        return None, Finding(NAME, "unknown", "no oracle and no independent judge for this data")
    floor, states = alerts.reward_floor(found.rows), []
    for step, arm in list(zip(found.steps, found.arms))[:-1]:
        reward = change(found.rows, lambda row: row.reward, ("aligned", arm))
        harm = change(found.rows, lambda row: row.harmlessness, ("aligned", arm))
        if reward is None or harm is None:
            return None, Finding(NAME, "unknown", "fewer than two prompts were answered at every step")
        states.append(alerts.parted(reward, harm, floor, alerts.harmlessness_half_width))
        if states[-1] == "warning":
            text = f"from step {step} to step {found.steps[-1]} R rises by {_said(reward)} nats"
            return step, Finding(NAME, "warning", f"{text} while harmlessness changes by {_said(harm)}")
    if "unknown" in states:
        return None, Finding(NAME, "unknown", "too few prompts to see whether harmlessness follows R to the end")
    steps = f"the {len(found.steps)} steps looked at"
    return None, Finding(NAME, "ok", f"at none of {steps} does R rise to the end while harmlessness does not")


def _said(estimate: Estimate) -> str:
    return f"{number(estimate.value, '')} {interval(estimate, '')}"


def section(found: Along, part: int | None, finding: Finding) -> str:
    """The report's section: R and the judge in one figure, and a table of the steps."""
    points = found.points
    curves = [
        figures.Curve(name, css, [point[metric].estimate for point in points])
        for metric, name, css in (
            ("self_reward", "R, nats (left)", "c-prompted"),
            ("harmlessness", "harmlessness (right)", "c-better"),
        )
        if all(metric in point for point in points)
    ]
    keys = "".join(f'<span class="key k-{curve.css[2:]}">{escape(curve.name)}</span>' for curve in curves)
    chart = figures.two_scales(found.steps, curves, "training step", "R and the judge along training", part)
    return (
        '<p class="lead">The self-reward R of held-out answers, which training raises, and the independent judge, '
        "which it never sees; whiskers are 95 % intervals over prompts. The dashed line is the step from which R rises "
        f'to the end while harmlessness does not.</p><div class="legend">{keys}</div>{chart}'
        f'<p class="note">{escape(finding.text)}.</p>{_table(found, points)}'
    )


def _table(found: Along, points: list[dict[str, Row]]) -> str:
    names = [name for name in SHOWN if all(name in point for point in points)]
    heads = "".join(f'<th class="num">{escape(SHOWN[name])}</th>' for name in names)
    body = "".join(
        f'<tr><td class="num">{step}</td>{"".join(_cell(point[name]) for name in names)}</tr>'
        for step, point in zip(found.steps, points)
    )
    return (
        f'<div class="scroll"><table><thead><tr><th class="num">step</th>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(row: Row) -> str:
    value, bounds = number(row.estimate.value, row.unit), interval(row.estimate, row.unit)
    return f'<td class="num"><b>{value}</b><span class="bounds">{bounds}</span></td>'
