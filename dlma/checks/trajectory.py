"""The trajectory of a run: every metric of the intermediate policies, and where R and the independent judge part.

Step 0 is the base, the last step the policy; the same prompts are answered at every step with the same random numbers.
R and the judge part at the first step from which, to the end, R rises and no independent judge sees a rise: the rule
and the limits of the alert `over_optimisation`, paired over prompts. It looks once per step, without correction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dlma import csv_text
from dlma.checks.alerts import Alerts
from dlma.checks.finding import Finding
from dlma.metrics.summary import METRICS, Row, summary_rows, truth_of
from dlma.records import POINTS, EvalRow, Verdict
from dlma.statistics.format import bounded, exact
from dlma.statistics.intervals import Estimate, fraction_interval
from dlma.statistics.paired import change

NAME = "parting"


@dataclass(frozen=True)
class Trajectory:
    """The rows of every step: `arms[i]` is the arm's name in `rows` at `steps[i]`.

    wins: for each independent judge the points (win 1, tie 1/2, lose 0) against the base, by arm and prompt
    """

    steps: list[int]
    arms: list[str]
    rows: list[EvalRow]
    wins: dict[str, dict[tuple[str, str], float]]

    @property
    def judges(self) -> list[str]:
        """The metric of each judge."""
        return [f"win_rate/{judge}" for judge in self.wins]

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


def trajectory(
    evals: Sequence[EvalRow],
    on_the_way: Sequence[EvalRow],
    last: int,
    verdicts: Mapping[str, Sequence[Verdict]] | None = None,
) -> Trajectory:
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
    return Trajectory(steps, ["base", *kept, "aligned"], [*ends, *on_the_way], wins)


def trajectory_csv(found: Trajectory, part: int | None) -> bytes:
    """The CSV: a line per step; of each metric the value and its 95 % interval over prompts; 1 where they part."""
    points = found.points
    names = [name for name in (*(metric.name for metric in METRICS), *found.judges) if any(name in p for p in points)]
    heads, rows = ["step", "n", "parts", *(f"{name}{end}" for name in names for end in ("", "_low", "_high"))], []
    for step, point in zip(found.steps, points, strict=True):
        cells = [cell for name in names for cell in exact(point[name].estimate if name in point else None)]
        n = max(row.estimate.n for row in point.values())
        rows.append([step, n, int(step == part), *cells])
    return csv_text.table(heads, rows)


def parting(found: Trajectory, alerts: Alerts) -> tuple[int | None, Finding]:
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
            heard = ", ".join(f"{judge} changes by {bounded(gain, '')}" for judge, (gain, _) in gains.items())
            text = f"from step {step} to step {found.steps[-1]} R rises by {bounded(reward, '')} nats while {heard}"
            return step, Finding(NAME, "warning", text)
    if "unknown" in states:
        return None, Finding(NAME, "unknown", "too few prompts to see whether a judge follows R to the end")
    steps = f"the {len(found.steps)} steps looked at"
    return None, Finding(NAME, "ok", f"at none of {steps} does R rise to the end while no judge sees a rise")


def _gains(found: Trajectory, arm: str, alerts: Alerts) -> dict[str, tuple[Estimate, float]]:
    """What the truth says that the last policy has gained over an arm, else each judge; the half-width to see none."""
    known, ends = truth_of(found.rows), ("aligned", arm)
    gain = None if known is None else change(found.rows, known.value, ends)
    if known is not None and gain is not None:
        return {known.name: (gain, alerts.truth_half_width)}
    gains = {}
    for judge, points in found.wins.items():
        gain = change(found.rows, _by(points), ends)
        if gain is not None:
            gains[f"the win rate over the base by {judge}"] = (gain, alerts.win_half_width)
    return gains


def _by(points: Mapping[tuple[str, str], float]) -> Callable[[EvalRow], float | None]:
    return lambda row: points.get((row.arm, row.prompt_id))
