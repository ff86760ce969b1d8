"""Metrics: what else is measured of each arm, on its answers or on test items of its own.

A metric is any object with `columns` (what its scores mean; complete once they are there), `identity()` (what decides
them beyond its configuration), `scores(scene)`, and `report()`, what the manifest is to keep. A score stands for one
prompt or item, so that every figure gets an interval over prompts or items, and arms can be compared in pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

from dlma.records import Answer, Context, MetricValue, Prompt, Turn

Measured = tuple[Sequence[MetricValue], Sequence[Mapping]]  # a metric's scores and columns


Better = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class MetricColumn:
    """How a metric's scores are summed up and shown; `kind` and `better` as in the summary table's own metrics.

    tax: a skill that alignment was not asked to change; its change from the base is a figure of its own
    """

    name: str
    label: str
    kind: Literal["mean", "share", "ratio", "exp_ratio"]
    unit: str = ""
    better: Better = ""
    tax: bool = False


@dataclass(frozen=True)
class MetricInput:
    """What there is to measure: the answers of each arm, each prompt's conversation, and the arms with own weights."""

    answers: Mapping[str, Sequence[Answer]]
    turns: Mapping[str, Sequence[Turn]]
    models: Sequence[str]


class MetricComponent(Protocol):
    columns: Sequence[MetricColumn]

    def identity(self) -> list[str]: ...

    def scores(self, scene: MetricInput) -> list[MetricValue]: ...

    def report(self) -> dict: ...


@runtime_checkable
class Selective(Protocol):
    """A metric that not every run may use."""

    def require(self, splits: Mapping[str, str]) -> None:
        """Raises UserError where it may not be; splits: of the prompts trained on and measured, by their ids."""


def scene(
    prompts: Sequence[Prompt], contexts: Sequence[Context], answers: Mapping[str, Sequence[Answer]], trained: bool
) -> MetricInput:
    """What there is to measure of a run."""
    whole = {prompt.id: prompt.turns for prompt in prompts}
    turns = {row.prompt_id: whole[row.prompt_id][row.dropped_turns :] for row in contexts}
    return MetricInput(answers, turns, ["base", "aligned"] if trained else ["base"])


def by_own_names(measured: Mapping[str, Measured]) -> list[Measured]:
    """The scores and columns of every metric, by its name in the config; a column that several metrics have gets that
    name too, so that what two of them measured never is one row."""
    count = Counter(column["name"] for _, columns in measured.values() for column in columns)
    shared = {name for name, times in count.items() if times > 1}
    return [
        (
            [replace(s, metric=f"{s.metric}_{own}") if s.metric in shared else s for s in scores],
            [_renamed(column, own) if column["name"] in shared else column for column in columns],
        )
        for own, (scores, columns) in measured.items()
    ]


def _renamed(column: Mapping, own: str) -> dict:
    return {**column, "name": f"{column['name']}_{own}", "label": f"{column['label']} ({own})"}
