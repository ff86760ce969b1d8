"""The trajectory of a run: every metric of the intermediate policies, and where R and the independent judge part.

Step 0 is the base, the last step the policy; the same prompts are answered at every step with the same random numbers.
R and the judge part at the first step from which, to the end, R rises and no independent judge sees a rise: the rule
and the limits of the alert `over_optimisation`, paired over prompts. It looks once per step, without correction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from dlma import csv_text
from dlma.checks.alerts import Alerts
from dlma.checks.finding import Finding
from dlma.metrics.summary import METRICS, Row, summary_rows
from dlma.records import EvalRow, Verdict
from dlma.report import charts as charts_of
from dlma.report.verdicts import POINTS
from dlma.statistics.format import bounded, interval, number
from dlma.statistics.intervals import Estimate, fraction_interval
from dlma.statistics.paired import change

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
    """The rows of every step: `arms[i]` is the arm's name in `rows` at `steps[i]`.

    wins: for each independent judge the points (win 1, tie 1/2, lose 0) against the base, by arm and prompt
    """

    steps: list[int]
    arms: list[str]
    rows: list[EvalRow]
    wins: dict[str, dict[tuple[str, str], float]]

    @property
    def points(self) -> list[dict[str, Row]]:
        """The metrics of each step, by name."""
        table = summary_rows(self.rows, self.arms)
        found = [{row.metric: row for row in table if row.arm == arm} for arm in self.arms]
        for judge, points in self.wins.items():
            for arm, point in zip(self.arms, found):
                values = [value for (one, _), value in points.items() if one == arm]
                if values:
                    name = f"win_rate/{judge}"
                    point[name] = Row(name, arm, fraction_interval(values), "share")
        return found


def along(
    evals: Sequence[EvalRow],
    on_the_way: Sequence[EvalRow],
    last: int,
    verdicts: Mapping[str, Sequence[Verdict]] | None = None,
) -> Along:
    """The base, the policies kept on the way (arms step-NNNNNN) and the last one, in order of their steps.

    verdicts: of each independent judge, on these policies against the base; the base against itself is a tie
    """
    kept = sorted({row.arm for row in on_the_way})
    ends = [row for row in evals if row.arm in ("base", "aligned")]
    steps = [0, *(int(arm.removeprefix("step-")) for arm in kept), last]
    wins: dict[str, dict[tuple[str, str], float]] = {}
    for judge, rows in (verdicts or {}).items():
        parsed = [row for row in rows if row.against == "base" and row.outcome in POINTS]
        wins[judge] = {("base", row.prompt_id): 0.5 for row in parsed}
        wins[judge] |= {(row.arm, row.prompt_id): POINTS[row.outcome] for row in parsed}
    return Along(steps, ["base", *kept, "aligned"], [*ends, *on_the_way], wins)


def along_csv(found: Along, part: int | None) -> bytes:
    """The CSV: a line per step; of each metric the value and its 95 % interval over prompts; 1 where they part."""
    points = found.points
    names = [name for name in (*(metric.name for metric in METRICS), *_judges(found)) if any(name in p for p in points)]
    heads, rows = ["step", "n", "parts", *(f"{name}{end}" for name in names for end in ("", "_low", "_high"))], []
    for step, point in zip(found.steps, points, strict=True):
        cells = [cell for name in names for cell in _cells(point[name].estimate if name in point else None)]
        n = max(row.estimate.n for row in point.values())
        rows.append([step, n, int(step == part), *cells])
    return csv_text.table(heads, rows)


def _judges(found: Along) -> list[str]:
    return [f"win_rate/{judge}" for judge in found.wins]


def _cells(estimate: Estimate | None) -> list[str]:
    bounds = (estimate.value, estimate.low, estimate.high) if estimate else (math.nan,) * 3
    return ["" if math.isnan(bound) else repr(bound) for bound in bounds]


def parting(found: Along, alerts: Alerts) -> tuple[int | None, Finding]:
    """The step from which R rises to the end while no independent judge sees a rise, or None; and a line."""
    floor, states = alerts.reward_floor(found.rows), []
    for step, arm in list(zip(found.steps, found.arms))[:-1]:
        reward = change(found.rows, lambda row: row.reward, ("aligned", arm))
        gains = _gains(found, arm, alerts)
        if reward is None or not gains:
            return None, Finding(NAME, "unknown", "no oracle and no independent judge for this data")
        each = {alerts.parted(reward, gain, floor, width) for gain, width in gains.values()}
        states.append("ok" if "ok" in each else "unknown" if "unknown" in each else "warning")
        if states[-1] == "warning":
            heard = ", ".join(f"{judge} changes by {_said(gain)}" for judge, (gain, _) in gains.items())
            text = f"from step {step} to step {found.steps[-1]} R rises by {_said(reward)} nats while {heard}"
            return step, Finding(NAME, "warning", text)
    if "unknown" in states:
        return None, Finding(NAME, "unknown", "too few prompts to see whether a judge follows R to the end")
    steps = f"the {len(found.steps)} steps looked at"
    return None, Finding(NAME, "ok", f"at none of {steps} does R rise to the end while no judge sees a rise")


def _gains(found: Along, arm: str, alerts: Alerts) -> dict[str, tuple[Estimate, float]]:
    """What the oracle says that the last policy has gained over an arm, else each judge; the half-width to see none."""
    ends = ("aligned", arm)
    harm = change(found.rows, lambda row: row.harmlessness, ends)
    if harm is not None:
        return {"harmlessness": (harm, alerts.harmlessness_half_width)}
    gains = {}
    for judge, points in found.wins.items():
        gain = change(found.rows, lambda row, points=points: points.get((row.arm, row.prompt_id)), ends)
        gains[f"the win rate over the base by {judge}"] = (gain, alerts.win_half_width)
    return {name: pair for name, pair in gains.items() if pair[0] is not None}


def _said(estimate: Estimate) -> str:
    return bounded(estimate, "")


def section(found: Along, part: int | None, finding: Finding) -> str:
    """The report's section: R and the judge in one figure, and a table of the steps."""
    points = found.points
    judges = {"harmlessness": "harmlessness (right)"}
    judges |= {name: f"{name.replace('win_rate/', 'win rate by ')} (right)" for name in _judges(found)}
    known = [(name, said) for name, said in judges.items() if all(name in point for point in points)]
    curves = [
        charts_of.StepCurve(said, css, [point[name].estimate for point in points])
        for (name, said), css in zip([("self_reward", "R, nats (left)"), *known[:1]], ("c-prompted", "c-better"))
    ]
    keys = "".join(f'<span class="key k-{curve.css[2:]}">{escape(curve.name)}</span>' for curve in curves)
    chart = charts_of.two_scales(found.steps, curves, "training step", "R and the judge along training", part)
    return (
        '<p class="lead">The self-reward R of held-out answers, which training raises, and the independent judge, '
        "which it never sees; whiskers are 95 % intervals over prompts. The dashed line is the step from which R rises "
        f'to the end while no judge sees a rise.</p><div class="legend">{keys}</div>{chart}'
        f'<p class="note">{escape(finding.text)}.</p>{_table(found, points)}'
    )


def _table(found: Along, points: list[dict[str, Row]]) -> str:
    heads = SHOWN | {name: name.replace("win_rate/", "win rate by ") for name in points[-1] if name not in SHOWN}
    names = [n for n in heads if (n in SHOWN or n.startswith("win_rate/")) and all(n in point for point in points)]
    head = "".join(f'<th class="num">{escape(heads[name])}</th>' for name in names)
    body = "".join(
        f'<tr><td class="num">{step}</td>{"".join(_cell(point[name]) for name in names)}</tr>'
        for step, point in zip(found.steps, points)
    )
    return (
        f'<div class="scroll"><table><thead><tr><th class="num">step</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(row: Row) -> str:
    value, bounds = number(row.estimate.value, row.unit), interval(row.estimate, row.unit)
    return f'<td class="num"><b>{value}</b><span class="bounds">{bounds}</span></td>'
