"""Training to a KL: which of the policies that were kept along training is the one to stop at.

KL grows along training, so the place where it passes the target is looked for by halves: the last policy, then the
middle of what is left, until two neighbours have the target between them. Of these the nearer one in log KL is taken:
weights of two steps have no mean whose KL is known. Where the last policy has not passed the target it is kept.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dlma.errors import UserError
from dlma.evaluation.text import eval_row
from dlma.records import Answer
from dlma.statistics.format import bounded
from dlma.statistics.intervals import Estimate, mean_interval
from dlma.store.owned import TRAIN

if TYPE_CHECKING:
    from dlma.store.stage import Stage


def search(steps: Sequence[int], target: float, answered: Callable[[int], Sequence[Answer]]) -> dict[int, Estimate]:
    """KL (nats per answer) at the steps that had to be looked at, in the order of the steps.

    steps: ascending, the last one included; the base, before them, has a KL of 0
    answered: the policy's answers at a step, drawn by itself
    raises: UserError for fewer than 2 answers
    """

    def kl(step: int) -> Estimate:
        ratios = [eval_row(row).log_ratio for row in answered(step)]
        if len(ratios) < 2:
            raise UserError(f"objective.target_kl: is read on validation prompts, and the data have {len(ratios)}")
        return mean_interval(ratios)

    low, high = -1, len(steps) - 1
    found = {steps[high]: kl(steps[high])}
    if found[steps[high]].value <= target:
        return found
    while high - low > 1:
        middle = (low + high) // 2
        found[steps[middle]] = kl(steps[middle])
        low, high = (low, middle) if found[steps[middle]].value > target else (middle, high)
    return dict(sorted(found.items()))


def nearest(curve: Mapping[int, Estimate], target: float) -> tuple[int, bool]:
    """The step to stop at, and whether the target was passed.

    The two candidates are the first step above the target and the one before it, unless that is the base or its KL is
    not above 0, which is infinitely far in log KL.
    """
    above = [step for step, kl in curve.items() if kl.value > target]
    if not above:
        return max(curve), False
    below = [step for step in curve if step < above[0] and curve[step].value > 0]
    two = [*below[-1:], above[0]]
    return min(two, key=lambda step: abs(math.log(curve[step].value / target))), True


def kept_at(names: Sequence[str], train_csv: bytes) -> dict[int, str]:
    """The policies by their steps: those that were kept on the way, by the names of their folders, and `aligned`."""
    *_, (last, _) = _steps(train_csv)
    return {int(name.removeprefix("step-")): name for name in names} | {int(last): "aligned"}


def leave(folder: Path, trained: Stage, kept: Mapping[int, str], curve: Mapping[int, Estimate], target: float) -> dict:
    """Leave the chosen policy and its training in a stage's folder; its notes, with the curve and the choice."""
    step, reached = nearest(curve, target)
    place = "policy" if step == max(kept) else f"intermediate/{kept[step]}"
    shutil.copytree(trained.path(place), folder / "policy", dirs_exist_ok=True)  # a killed attempt left the same
    (folder / TRAIN).write_bytes(_until(trained.read(TRAIN), step))
    read = [{"step": at, **asdict(kl)} for at, kl in curve.items()]
    chosen = {"target": target, "step": step, "reached": reached, "steps": max(kept), "curve": read}
    return {**trained.notes, "intermediate": [], "target_kl": chosen}


def _until(train_csv: bytes, step: int) -> bytes:
    """train.csv up to a step."""
    head = train_csv.splitlines(keepends=True)[0]
    return head + b"".join(line for at, line in _steps(train_csv) if at <= step)


def _steps(train_csv: bytes) -> list[tuple[float, bytes]]:
    """The lines of train.csv with their steps: numbers under plain names, so that no cell is quoted."""
    head, *rows = train_csv.splitlines(keepends=True)
    place = head.strip().split(b",").index(b"step")
    return [(float(row.split(b",")[place]), row) for row in rows]


def curve_of(chosen: Mapping) -> dict[int, Estimate]:
    """The curve that the notes of such a policy hold."""
    return {row["step"]: Estimate(row["value"], row["low"], row["high"], row["n"]) for row in chosen["curve"]}


def line(chosen: Mapping) -> str:
    """What came of it, in a line for the summary."""
    kl, step, target = curve_of(chosen)[chosen["step"]], chosen["step"], chosen["target"]
    if not chosen["reached"]:
        return (
            f"a KL of {target:g} nats per answer was never reached: the largest is {bounded(kl, '')}, at the last "
            f"step, {step}; train longer, or at a higher rate"
        )
    return (
        f"of the policies kept along {chosen['steps']} steps that of step {step} is the nearest to a KL of {target:g} "
        f"nats per answer: {bounded(kl, '')} on {kl.n:,} validation prompts"
    )
