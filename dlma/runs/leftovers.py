"""Files that an earlier run of the same name left in the run folder: removed unless the present run writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dlma import files
from dlma.runs.folder import (
    CATEGORIES,
    CONFIG,
    COSTS,
    METRIC_VALUES,
    METRICS,
    POLICY,
    REPORT,
    REWARD_TRAIN,
    REWARDS,
    ROUNDS,
    TRAJECTORY,
    TRAJECTORY_ANSWERS,
    TUNED,
    VERDICTS,
    VERSUS,
    VERSUS_VERDICTS,
    record,
)
from dlma.runs.publish import withdraw
from dlma.runs.written import is_as_written, is_run
from dlma.store.stage import MANIFEST, Stage

ALWAYS = (MANIFEST, CONFIG, METRICS, COSTS, REPORT)


def written(
    stages: dict[str, Stage],
    *,
    rounds: Sequence[Mapping[str, object]],
    judged: dict[str, Stage],
    measured: dict[str, Stage],
    by_category: Sequence[object],
) -> dict[str, bool]:
    """The files that not every run writes, and whether this one does."""
    had = {
        (REWARD_TRAIN, REWARDS): "reward" in stages,
        (TRAJECTORY, TRAJECTORY_ANSWERS): "intermediate" in stages,
        (ROUNDS,): "scored_otherwise" in rounds[-1],
        (VERDICTS,): bool(judged),
        (METRIC_VALUES,): bool(measured),
        (CATEGORIES,): bool(by_category),
    }
    return {name: here for names, here in had.items() for name in names}


def clear(folder: Path, stages: dict[str, Stage], writes: dict[str, bool]) -> None:
    """Remove the outputs that this run does not have; nothing where no run was, and files that no run writes stay.

    writes: what `written` says of this run
    """
    if not is_run(folder):
        return
    files.remove_drafts(folder)
    trained, same = stages["policy"].notes["trained"], _same(folder, stages)
    has = writes | {
        POLICY: trained and (not stages["policy"].pruned or "policy" in same),
        TUNED: "tuned" in stages,
    }
    # Of mode=versus, which speaks of the aligned answers; damaged ones would never be written again by a run.
    entries = record(folder)
    for name in (VERSUS, VERSUS_VERDICTS):
        has[name] = "aligned" in same and (name not in entries or is_as_written(folder, name, entries[name]))
    for name in [name for name, here in has.items() if not here]:
        withdraw(folder / name)


def _same(folder: Path, stages: dict[str, Stage]) -> set[str]:
    """The names of the stages that the earlier run had too."""
    earlier = files.read_json(folder / MANIFEST)
    return {name for name, stage in stages.items() if earlier.get(name, {}).get("key") == stage.key}
