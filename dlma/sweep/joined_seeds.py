"""Further seeds of a table: the rows of run folders joined with those of a values.parquet, whose folders are gone.

A row is what its name says (base, method, arm, settings in any order), since nothing else is kept of an earlier run.
How a row is called follows from what differs among all runs, so that the folders are to be those of an experiment's own
commands: a choice that all of the folders share stands in no name and is taken for the earlier runs' choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dlma.errors import UserError
from dlma.metrics.summary import Metric
from dlma.runs.cells import Arm, Cell
from dlma.sweep.results import Measured
from dlma.sweep.settings import SHARED_ARMS, Setting
from dlma.sweep.values import hashed, with_shared_arms

Name = tuple[str, str, frozenset[tuple[str, str]], str]


class _SettingsAlone(dict[str, object]):
    """The config of a row that no folder has: its settings; UserError where anything else is asked for."""

    def __init__(self, label: str, settings: dict[str, str]) -> None:
        super().__init__(settings)
        self.label = label

    def __missing__(self, key: str) -> object:
        raise UserError(f"{self.label}: no folder has a run of it, and its values do not say {key}")


def joined(rows: Sequence[Setting], earlier: Sequence[Setting]) -> list[Setting]:
    """Every row of both, with the seeds of both; of a seed that both have, the folders' run counts.

    rows: of run folders; earlier: of values.parquet (values.read). An earlier seed has the config, the overrides and
    the definitions of metrics of its row's own runs, its costs if it came with them, and no verdicts. A row that one
    side lacks stays by itself, so that methods can be added to a table, some of them in fewer seeds. All prompts go by
    their hashes. The order is that of the earlier table, then of the folders.

    Raises UserError where two rows have one name; where an earlier row and one of the folders may be one under two
    names (no setting that both are told by differs); where a trained row that only the earlier table has is not told by
    just what the folders' rows differ in, so that its curve or its baseline would be guessed; and where a run of a row
    lacks prompts that the row's earlier seeds have.
    """
    own, known = _by_name(rows), _by_name(earlier)
    gone = [row for name, row in known.items() if name not in own]
    new = [row for name, row in own.items() if name not in known]
    _refuse_second_names(gone, new)
    found = [_with_seeds(own[name], row) if name in own else _without_folders(row, rows) for name, row in known.items()]
    found += map(_hashed, new)
    bases = list(dict.fromkeys(row.base for row in found))
    return with_shared_arms(sorted(found, key=lambda row: (bases.index(row.base), row.arm not in SHARED_ARMS)))


def name_of(row: Measured) -> Name:
    """What a row, or a number of one, is known by."""
    return row.base, row.method, frozenset(row.settings), row.arm


def _by_name(rows: Sequence[Setting]) -> dict[Name, Setting]:
    found = {name_of(row): row for row in rows}
    if len(found) < len(rows):
        names = list(map(name_of, rows))
        twice = next(row for row in rows if names.count(name_of(row)) > 1)
        raise UserError(f"{twice.base}, {twice.label}: two rows have this name, so that neither can be given a seed")
    return found


def _refuse_second_names(gone: Sequence[Setting], new: Sequence[Setting]) -> None:
    """Refuse earlier rows and rows of folders that may be the same."""
    pairs = [(one, other) for one in gone for other in new if _may_be_one(one, other)]
    if pairs:
        one, other = pairs[0]
        raise UserError(
            f"{one.base}: the folders' {other.label} may be the earlier {one.label} under another name (in all "
            f"{len(pairs)} such pairs); give the folders of all sweeps of the experiment, so that rows are called alike"
        )


def _may_be_one(one: Setting, other: Setting) -> bool:
    told, own = dict(one.settings), dict(other.settings)
    alike = (one.base, one.method, one.arm) == (other.base, other.method, other.arm)
    return alike and all(told[key] == own[key] for key in told.keys() & own.keys())


def _hashed(row: Setting) -> Setting:
    return replace(row, runs={seed: _with_hashes(cell) for seed, cell in row.runs.items()})


def _with_hashes(cell: Cell) -> Cell:
    arms = {name: replace(arm, prompts=tuple(map(hashed, arm.prompts))) for name, arm in cell.arms.items()}
    return replace(cell, arms=arms)


def _with_seeds(row: Setting, earlier: Setting) -> Setting:
    """A row of folders with the earlier seeds that it lacks, and called as they are."""
    row = _hashed(row)
    first = next(iter(row.runs.values()))
    _refuse_other_prompts(row, earlier)
    runs = {
        seed: replace(first, seed=seed, arms={row.arm: cell.arms[row.arm]}, verdicts={}, costs=cell.costs)
        for seed, cell in earlier.runs.items()
    }
    return replace(row, settings=earlier.settings, runs=dict(sorted((runs | row.runs).items())))


def _refuse_other_prompts(row: Setting, earlier: Setting) -> None:
    wanted = _prompts(earlier.arms)
    for seed, arm in row.arms.items():
        if missing := wanted - set(arm.prompts):
            raise UserError(
                f"{row.base}, {row.label}: of the {len(wanted)} prompts of its earlier seeds seed {seed} in "
                f"{row.runs[seed].folder} lacks {len(missing)}: not the same data"
            )


def _prompts(arms: dict[int, Arm]) -> set[str]:
    return {prompt for arm in arms.values() for prompt in arm.prompts}


def _without_folders(row: Setting, rows: Sequence[Setting]) -> Setting:
    """A row that no folder has, its settings under the whole names of the folders' overrides."""
    overrides = dict(row.settings) if row.arm in SHARED_ARMS else _overrides(row, rows)
    config, metrics = _SettingsAlone(row.label, overrides), _further(rows)
    runs = {seed: replace(cell, overrides=overrides, config=config, metrics=metrics) for seed, cell in row.runs.items()}
    return replace(row, overrides=overrides, runs=runs)


def _overrides(row: Setting, rows: Sequence[Setting]) -> dict[str, str]:
    most = sorted(rows, key=lambda one: -len(one.overrides))  # their order is that of the others
    keys = dict.fromkeys(key for one in most for key in one.overrides)
    told = {key: value for key in keys for short, value in row.settings if short in (key, key.rpartition(".")[2])}
    if not len(told) == len(keys) == len(row.settings):
        raise UserError(
            f"{row.base}, {row.label}: no folder has a run of it, and the folders' rows are told by "
            f"{', '.join(keys) or 'nothing'}; give a folder with a run of it, of any seed"
        )
    return told


def _further(rows: Sequence[Setting]) -> dict[str, Metric]:
    return {name: metric for row in rows for cell in row.runs.values() for name, metric in cell.metrics.items()}
