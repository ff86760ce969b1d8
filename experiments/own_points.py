"""Each method's own point, chosen on validation prompts alone: what `experiments/tables.py own` writes.

Two rules, both up to 1 nat from the base: the largest self-reward, and, as R may favour the method that is trained on
it, the largest KL. Of a method none of whose settings ends there both take the one with the least KL.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from dlma import files
from dlma.errors import UserError
from dlma.runs.cells import Arm
from dlma.sweep.settings import SHARED_ARMS, Setting

CAP = 1.0  # nats per answer


class Point(TypedDict):
    """A line of own_points.csv: a trained setting, its means over prompts and seeds, and which rules choose it."""

    base: str
    method: str
    row: str
    n: int
    kl: float
    self_reward: float
    by_reward: int
    by_kl: int


def points(rows: Sequence[Setting]) -> list[Point]:
    """Every trained setting; raises UserError where a run looked at other prompts than the validation ones."""
    looked = {str(row.config.get("evaluation.split")) for row in rows} - {"validation"}
    if looked:
        raise UserError(f"evaluation.split={min(looked)}: an own point is chosen on evaluation.split=validation alone")
    return chosen([_point(row) for row in rows if row.arm not in SHARED_ARMS and row.final])


def chosen(found: Sequence[Point]) -> list[Point]:
    """The same points, with what each rule chooses of a method on a base."""
    found = [{**one, "by_reward": 0, "by_kl": 0} for one in found]
    for own in _by_method(found):
        best(own, "self_reward")["by_reward"] = 1
        best(own, "kl")["by_kl"] = 1
    return found


def best(found: Sequence[dict], metric: str) -> dict:
    """The setting with the most of a metric among those up to 1 nat; where there is none, that with the least KL."""
    under = [one for one in found if one["kl"] <= CAP]
    return max(under, key=lambda one: one[metric]) if under else min(found, key=lambda one: one["kl"])


def _by_method(found: Sequence[Point]) -> list[list[Point]]:
    kinds = dict.fromkeys((one["base"], one["method"]) for one in found)
    return [[one for one in found if (one["base"], one["method"]) == kind] for kind in kinds]


def _point(row: Setting) -> Point:
    kl, reward = (_mean(row, name) for name in ("kl", "self_reward"))
    n = max(len(_measured(arm, "kl")) for arm in row.arms.values())
    return Point(base=row.base, method=row.method, row=row.label, n=n, kl=kl, self_reward=reward, by_reward=0, by_kl=0)


def _mean(row: Setting, metric: str) -> float:
    means = [_measured(arm, metric).mean() for arm in row.arms.values()]
    return float(sum(means) / len(means))


def _measured(arm: Arm, metric: str) -> np.ndarray:
    """The values of the prompts; test items that other metrics have of their own have none."""
    values = arm.numbers[metric][:, 0]
    return values[~np.isnan(values)]


def write(folder: Path, found: Sequence[Point]) -> None:
    """own_points.csv of an experiment's folder."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Point.__annotations__), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**one, "kl": round(one["kl"], 4), "self_reward": round(one["self_reward"], 4)} for one in found)
    files.write_bytes(folder / "own_points.csv", text.getvalue().encode())


def line(one: Point) -> str:
    """A point for people."""
    rules = [name for name, chosen in (("reward", one["by_reward"]), ("KL", one["by_kl"])) if chosen]
    chosen = f": chosen by {' and '.join(rules)}" if rules else ""
    return f"{one['base']}, {one['row']}: {one['kl']:.2f} nats, R {one['self_reward']:.2f}{chosen}"
