"""Unlike things of one name in the runs of a report: bases, judges and metrics are what their fingerprints say.

A run's manifest.json holds the fingerprints: of the base's weights, of what decides a judge's verdicts, of what decides
a metric's scores. Where runs of one report have several under one name, each is shown with the first digits of its own.
What a run does not tell (an older one) is taken for the others'.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dlma.metrics.base import by_own_names
from dlma.runs.cells import Arm, Cell
from dlma.runs.folder import RunFolder
from dlma.store.fingerprint import key_of

_SHOWN = 6  # hex digits


@dataclass(frozen=True)
class Prints:
    """The fingerprints that a run's manifest holds, by name; of metrics, by column."""

    base: str | None = None
    judges: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)


def read_prints(folder: Path, following: Collection[str] = ()) -> Prints:
    """The fingerprints of a run folder; those that it does not hold are left out.

    following: the stages of judges and metrics whose seed is the run's in all runs: they are the same in each
    """
    manifest = RunFolder(folder).manifest()
    judges = {name: _print(stage, f"judge {name}" in following) for name, stage in _of_kind(manifest, "judge ").items()}
    measured = _of_kind(manifest, "metric ")
    named = by_own_names({own: ([], stage["notes"]["columns"]) for own, stage in measured.items()})
    metrics = {
        column["name"]: _print(stage, f"metric {own}" in following)
        for (own, stage), (_, columns) in zip(measured.items(), named, strict=True)
        for column in columns
    }
    weights = manifest.get("contexts", {}).get("values", {}).get("weights", [])
    base = [part for part in weights if "/" not in part]  # tuned weights are named by their stage, which has the seed
    return Prints(key_of(base) if base else None, judges, metrics)


def _print(stage: dict, follows: bool) -> str:
    return key_of({key: value for key, value in stage["values"].items() if not (follows and key == "seed")})


def _followers(cells: Sequence[Cell]) -> set[str]:
    """The stages of judges and metrics whose own seed is the run's in every run that has them."""
    found: dict[str, bool] = {}
    for cell in cells:
        for name, stage in RunFolder(cell.folder).manifest().items():
            values = stage.get("values") if isinstance(stage, dict) else None
            if name.startswith(("judge ", "metric ")) and isinstance(values, dict):
                found[name] = found.get(name, True) and values.get("seed", cell.seed) == cell.seed
    return {name for name, follows in found.items() if follows}


def _of_kind(manifest: dict, kind: str) -> dict[str, dict]:
    return {name.removeprefix(kind): stage for name, stage in manifest.items() if name.startswith(kind)}


def told_apart(cells: Sequence[Cell]) -> list[Cell]:
    """The cells, with a base, judge or metric whose name means several things renamed in each."""
    following = _followers([cell for cell in cells if cell.arms])
    prints = {cell.folder: _known(cell, following) for cell in cells if cell.arms}
    bases = _clashes((cell.base, prints[cell.folder].base) for cell in cells if cell.arms)
    cells = [replace(cell, base=_name(cell.base, _of(prints, cell).base, bases)) for cell in cells]
    judges = _clashes(_within(cells, prints, lambda one: one.judges))
    metrics = _clashes(_within(cells, prints, lambda one: one.metrics))
    return [_renamed(cell, _of(prints, cell), judges, metrics) for cell in cells]


def _known(cell: Cell, following: Collection[str]) -> Prints:
    """What a run's manifest tells; nothing where it is not as a run writes it."""
    try:
        return read_prints(cell.folder, following)
    except (LookupError, TypeError, AttributeError):
        return Prints()


def _of(prints: dict[Path, Prints], cell: Cell) -> Prints:
    return prints.get(cell.folder, Prints())


def _within(cells: Sequence[Cell], prints: dict, part: Callable[[Prints], dict]) -> Iterable[tuple]:
    """((base, name), fingerprint): the base as its own judge is another one on another base, and no clash."""
    return (((c.base, name), value) for c in cells for name, value in part(_of(prints, c)).items())


def _clashes(named: Iterable[tuple]) -> set:
    """The names with more than one fingerprint."""
    found: dict[object, set[str]] = {}
    for name, value in named:
        if value is not None:
            found.setdefault(name, set()).add(value)
    return {name for name, values in found.items() if len(values) > 1}


def _name(name: str, value: str | None, clashes: set) -> str:
    return f"{name} [{value[:_SHOWN]}]" if name in clashes and value is not None else name


def _renamed(cell: Cell, own: Prints, judges: set, metrics: set) -> Cell:
    """The cell with its clashing judges and metrics under new names."""
    new = {n: f"{n} [{value[:_SHOWN]}]" for n, value in own.metrics.items() if (cell.base, n) in metrics}
    said = {n: f"{n} [{value[:_SHOWN]}]" for n, value in own.judges.items() if (cell.base, n) in judges}
    if not new and not said:
        return cell
    arms = {name: _arm(arm, new) for name, arm in cell.arms.items()}
    shown = {
        new.get(n, n): replace(m, name=new.get(n, n), label=_label(m.label, n, new)) for n, m in cell.metrics.items()
    }
    verdicts = {(arm, other, _judge(judge, said)): found for (arm, other, judge), found in cell.verdicts.items()}
    return replace(cell, arms=arms, metrics=shown, verdicts=verdicts)


def _arm(arm: Arm, new: dict[str, str]) -> Arm:
    return replace(arm, numbers={new.get(name, name): table for name, table in arm.numbers.items()})


def _label(label: str, name: str, new: dict[str, str]) -> str:
    return label + new[name].removeprefix(name) if name in new else label


def _judge(shown: str, said: dict[str, str]) -> str:
    """A judge's heading may say more than its name, such as that it is self-reported."""
    name, rest, _ = shown.partition(" (self-reported)")
    return said.get(name, name) + rest
