"""Finished runs as settings: what `mode=report`, the end of a sweep and `experiments/` read.

    cells = folder.collect(["outputs/**"])     # run folders, from their own files
    rows = settings(cells)                     # method and the overrides that differ, seeds together
    found = all_results.results(rows, options) # the rows of results.csv
    text = tables.markdown(found)              # the tables: `results.read_csv` gives them back byte for byte

A cell is a run folder: status.json, config.yaml, metrics.csv, answers.parquet. A setting is all cells that agree in
everything but the seed. The base and the prompted base are answers that many cells share: each is one setting, and
so is a method whose answers are theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlma.errors import UserError
from dlma.metrics.summary import METRICS, Metric
from dlma.runs.cells import Arm, Cell
from dlma.sweep.results import ALIGNED, Settings, label
from dlma.sweep.unique_names import told_apart

SHARED_ARMS = ("base", "prompted")
# Overrides that the answers of the shared arms depend on, by how they begin.
_ASKED = (
    *("recipe.temperature", "recipe.top_", "recipe.max_", "recipe.dtype", "model", "data", "prompts"),
    *("evaluation", "sampler"),
)
# Keys that say where or how a run is done, not what it is.
APART = ("seed", "name", "runs", "method", "model", "model.base", "model.path", "mode")
NOTES = {"_work_", "_needs_"}  # what YAML says of a component to plans and checks
APART_TREES = (
    "sweep.",
    "store.",
    "logger.",
    "trainer.",
    "executor.",
    "mode.",
    "hydra.",
    "logger",
    "trainer",
    "executor",
)


@dataclass(frozen=True)
class Setting:
    """One row of the table: a method and what differs, with the runs of its seeds; `arm` says which answers.

    settings: what tells it from others of its method, under short names; overrides: all that differ in the sweep
    failed: method and overrides of each run of the sweep that failed
    """

    base: str
    method: str
    settings: Settings
    arm: str
    overrides: dict[str, str]
    runs: dict[int, Cell]
    failed: tuple[tuple[str, Settings], ...] = ()

    @property
    def label(self) -> str:
        """Its name for people, and for `sweep.baseline`."""
        name = label(self.method, self.settings)
        return name if self.final else f"{name} @ {self.arm}"

    @property
    def final(self) -> bool:
        """Whether it is what a run ends with, not a policy on the way (`intermediate=K`), which only makes curves."""
        return self.arm in (*SHARED_ARMS, ALIGNED)

    @property
    def arms(self) -> dict[int, Arm]:
        return {seed: cell.arms[self.arm] for seed, cell in self.runs.items()}

    @property
    def digests(self) -> dict[int, str]:
        return {seed: arm.digest for seed, arm in self.arms.items()}

    @property
    def config(self) -> dict[str, object]:
        return next(iter(self.runs.values())).config


def said(row: Setting, key: str) -> str | None:
    """The value of a key: as the run folder's config has it; committed values have what tells rows apart alone, by its
    own name or the last part of it. None where nothing says it.
    """
    value = row.config.get(key)
    return str(value) if value is not None else row.overrides.get(key, row.overrides.get(key.rpartition(".")[2]))


def settings(cells: Iterable[Cell]) -> list[Setting]:
    """The rows of the table, in the order of the cells; the base and the prompted base stand first, per base.

    Of two runs of one setting and seed the newest counts.
    """
    cells = list(cells)
    failed = tuple((cell.method, tuple(cell.overrides.items())) for cell in cells if cell.status == "failed")
    done = told_apart([cell for cell in cells if cell.arms])
    varying, apart = _varying(done), _following(done)
    groups: dict[tuple, list[Cell]] = {}
    for cell in done:
        groups.setdefault(_identity(cell, apart), []).append(cell)
    told = _told([members[0] for members in groups.values()], varying, apart)
    found = []
    for own, members in zip(told, groups.values(), strict=True):
        runs = {cell.seed: cell for cell in sorted(members, key=lambda cell: cell.started)}
        runs = dict(sorted(runs.items()))
        first = members[0]
        overrides = {key: value for key in varying if (value := _value(first, key)) is not None}
        for arm in dict.fromkeys(arm for cell in runs.values() for arm in cell.arms):
            having = {seed: cell for seed, cell in runs.items() if arm in cell.arms}
            found.append(Setting(first.base, first.method, own, arm, overrides, having, failed))
    return _in_order(found)


def _following(cells: Sequence[Cell]) -> set[tuple[Path, str]]:
    """The components' own seeds that follow the run's, by sweep; one set apart, such as data.seed, tells runs apart.

    Where a sweep has one seed only, it is as in the sweeps that have several; where none has, a key that is the run's
    seed in some sweeps and not in others follows it if those have several seeds between them.
    """
    keys = {key for cell in cells for key in cell.config if key.rpartition(".")[2] == "seed"}
    sweeps: dict[Path, list[Cell]] = {}
    for cell in cells:
        sweeps.setdefault(cell.folder.parent, []).append(cell)
    seeds = {place: {cell.seed for cell in inside} for place, inside in sweeps.items()}
    many = {place for place, own in seeds.items() if len(own) > 1}
    found = set()
    for key in keys:
        yes = {place for place, inside in sweeps.items() if all(c.config.get(key, c.seed) == c.seed for c in inside)}
        several = len({seed for place in yes for seed in seeds[place]}) > 1
        kept = yes if yes & many or (not many and (several or yes == sweeps.keys())) else set()
        found |= {(place, key) for place in kept}
    return found


def _identity(cell: Cell, apart: set[tuple[Path, str]]) -> tuple:
    """What decides a run but for the seed, and the seeds that follow it."""
    kept = [
        (key, repr(value))
        for key, value in cell.config.items()
        if key not in APART[:3]
        and not key.startswith(APART_TREES)
        and (cell.folder.parent, key) not in apart
        and not NOTES & set(key.split("."))
    ]
    return cell.method, cell.base, *sorted(kept)


def _value(cell: Cell, key: str) -> str | None:
    """The value of an override's key in a cell, a number or null as the config has it; None for a group's default."""
    value = cell.config.get(key)
    if key in cell.config and value is None:
        return "null"
    if isinstance(value, (int, float)):
        return repr(value).lower()
    return cell.overrides.get(key) or (str(value) if key in cell.config else None)


def _varying(cells: Sequence[Cell]) -> list[str]:
    keys = dict.fromkeys(key for cell in cells for key in cell.overrides)
    kept = [key for key in keys if key not in APART and not key.startswith(APART_TREES)]
    return [key for key in kept if len({_value(cell, key) for cell in cells}) > 1]


def _told(firsts: Sequence[Cell], varying: Sequence[str], apart: set[tuple[Path, str]]) -> list[Settings]:
    """What tells each setting from others of its method; leaves of the config where overrides do not."""
    leaves = [key.rpartition(".")[2] for key in varying]
    short = {
        key: leaf if leaves.count(leaf) == 1 and leaf != "seed" else key
        for key, leaf in zip(varying, leaves, strict=True)
    }
    told = []
    for cell in firsts:
        alike = [other for other in firsts if other.method == cell.method]
        differs = [key for key in varying if len({_value(other, key) for other in alike}) > 1]
        told.append(tuple((short[key], value) for key in differs if (value := _value(cell, key)) is not None))
    return [own + _rest(i, firsts, told, apart) for i, own in enumerate(told)]


def _rest(i: int, firsts: Sequence[Cell], told: Sequence[Settings], apart: set[tuple[Path, str]]) -> Settings:
    """What tells a setting from others of the same name and base."""
    names = [(cell.base, cell.method, own) for cell, own in zip(firsts, told, strict=True)]
    same = [n for n, name in enumerate(names) if name == names[i]]
    if len(same) == 1:
        return ()
    kept = [key for key, _ in _identity(firsts[i], apart)[2:]]
    differs = [key for key in kept if len({repr(firsts[n].config.get(key)) for n in same}) > 1]
    shown = tuple((key, str(firsts[i].config[key])) for key in differs[:2])
    return shown or (("run", str(same.index(i) + 1)),)


def _in_order(found: Sequence[Setting]) -> list[Setting]:
    """Per base: its shared arms, each once, then the methods; a method whose answers are a shared arm's is that row."""
    rows = []
    for base in dict.fromkeys(setting.base for setting in found):
        inside = [setting for setting in found if setting.base == base]
        shared = [group for arm in SHARED_ARMS for group in _merged([s for s in inside if s.arm == arm], arm)]
        own = [s for s in inside if s.arm not in SHARED_ARMS]
        rows += shared + [s for s in own if not any(_is_own(s, arm) for arm in SHARED_ARMS)]
    return rows


def _merged(rows: Sequence[Setting], arm: str) -> list[Setting]:
    """A shared arm of many settings: one row for all whose answers agree wherever they have a seed in common."""
    groups: list[list[Setting]] = []
    for row in rows:
        alike = (group for group in groups if all(_agree(row, other) for other in group))
        group = next(alike, None)
        groups.append([row]) if group is None else group.append(row)
    told = [_common(group, groups) for group in groups]
    if len({tuple(overrides.items()) for overrides in told}) < len(told):  # what they have in common does not tell
        told = [group[0].overrides for group in groups]
    return [_shared(group, arm, overrides) for group, overrides in zip(groups, told, strict=True)]


def _agree(one: Setting, other: Setting) -> bool:
    """Whether answers are the same wherever seeds are; without a seed in common, whether they were asked for alike."""
    common = one.runs.keys() & other.runs.keys()
    if common:
        return all(one.digests[seed] == other.digests[seed] for seed in common)
    asked = [{key: value for key, value in row.overrides.items() if _is_asked(key)} for row in (one, other)]
    return asked[0] == asked[1]


def _is_asked(key: str) -> bool:
    return key == "recipe" or key.startswith(_ASKED)


def _common(group: Sequence[Setting], groups: Sequence[Sequence[Setting]]) -> dict[str, str]:
    """The overrides that all of a group have, and that another group does not have."""
    values = [_shared_values(each) for each in groups]
    mine = _shared_values(group)
    return {key: value for key, value in mine.items() if any(other.get(key) != value for other in values)}


def _shared_values(group: Sequence[Setting]) -> dict[str, str]:
    first = group[0].overrides
    return {key: value for key, value in first.items() if all(row.overrides.get(key) == value for row in group)}


def _shared(group: Sequence[Setting], arm: str, overrides: dict[str, str]) -> Setting:
    runs = {seed: cell for row in reversed(group) for seed, cell in row.runs.items()}
    told = tuple((key.rpartition(".")[2], value) for key, value in overrides.items())
    return Setting(group[0].base, arm, told, arm, group[0].overrides, dict(sorted(runs.items())))


def _is_own(row: Setting, shared: str) -> bool:
    """Whether a setting's answers are a shared arm's of its own runs, to the last digit of their likelihoods."""
    arms = [(arm, row.runs[seed].arms.get(shared)) for seed, arm in row.arms.items()]
    return all(other is not None and other.exact == arm.exact for arm, other in arms)


def metrics_of(rows: Sequence[Setting]) -> dict[str, Metric]:
    """Every metric by name: the summary table's, then what these runs measured beyond it."""
    further = {name: metric for row in rows for cell in row.runs.values() for name, metric in cell.metrics.items()}
    return {metric.name: metric for metric in METRICS} | further


def baseline_of(row: Setting, rows: Sequence[Setting], name: str | None) -> Setting | None:
    """The setting that a row is held against: of the name given, on the same base; else the base's own answers.

    Of several settings of the method named, the one with the row's own overrides. The shared arms are those of the
    row's own runs. None for the baseline itself, and where the one that would be the row's own is not there (its run
    failed) while those of other settings are. Raises UserError on an unknown name.
    """
    wanted = name or SHARED_ARMS[0]
    inside = [other for other in rows if other.base == row.base]
    if wanted in SHARED_ARMS:
        found = [other for other in inside if other.arm == wanted and _has_its_arm(other, row)]
    else:
        found = [other for other in inside if other.label == wanted]
        found = found or [other for other in inside if other.method == wanted]
        if row.arm in SHARED_ARMS:
            if len(found) > 1:
                return None
        elif _own_one_failed(found, row, wanted):
            return None
        found = found if len(found) < 2 else [other for other in found if other.overrides == row.overrides] or found
        if len(found) != 1:
            raise UserError(_which(wanted, found, inside))
    return None if not found or any(other is row for other in found) else found[0]


def _own_one_failed(found: Sequence[Setting], row: Setting, method: str) -> bool:
    """Whether runs of the method with the row's own overrides failed, and none of what was found has them."""
    own = row.overrides.items()
    failed = any(name == method and own <= dict(told).items() for name, told in row.failed)
    return failed and not any(own <= other.overrides.items() for other in found)


def _has_its_arm(shared: Setting, row: Setting) -> bool:
    own = {s: cell.arms[shared.arm].digest for s, cell in row.runs.items() if shared.arm in cell.arms}
    common = own.keys() & shared.runs.keys()
    return bool(common) and all(own[seed] == shared.digests[seed] for seed in common)


def _which(wanted: str, found: Sequence[Setting], inside: Sequence[Setting]) -> str:
    names = " | ".join(other.label for other in found or inside)
    what = "several settings have that method" if found else "no setting of that name"
    return f"sweep.baseline={wanted}: {what}; give one of: {names}"
