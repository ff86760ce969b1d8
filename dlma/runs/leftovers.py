"""What an earlier run of the same name left in the run folder: what the present run does not write is removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlma import files
from dlma.runs.publish import withdraw
from dlma.store.stage import MANIFEST, Stage


def clear(
    folder: Path,
    stages: dict[str, Stage],
    *,
    rounds: Sequence[object],
    judged: dict[str, Stage],
    measured: dict[str, Stage],
    by_category: Sequence[object],
) -> None:
    """Remove the outputs that this run does not have; nothing where no run was, and files that no run writes stay."""
    if not (folder / MANIFEST).is_file():
        return
    trained, same = stages["policy"].notes["trained"], _same(folder, stages)
    had = {
        ("policy",): trained and (not stages["policy"].pruned or "policy" in same),
        ("tuned",): "tuned" in stages,
        ("reward.csv", "rewards.parquet"): "reward" in stages,
        ("along.csv", "along.parquet"): "along" in stages,
        ("rounds.csv",): len(rounds) > 1,
        ("verdicts.parquet",): judged,
        ("scores.parquet",): measured,
        ("categories.csv",): by_category,
        ("versus.csv", "versus.parquet"): "aligned" in same,  # of mode=versus, which speaks of the aligned answers
    }
    for name in [name for names, here in had.items() if not here for name in names]:
        withdraw(folder / name)


def _same(folder: Path, stages: dict[str, Stage]) -> set[str]:
    """The names of the stages that the earlier run had too."""
    earlier = files.read_json(folder / MANIFEST)
    return {name for name, stage in stages.items() if earlier.get(name, {}).get("key") == stage.key}
