"""From the command line to a checked config, before Hydra runs and before anything heavy is imported.

Hydra stops at the first mistake and lets `+key` and YAML typos through, so every override is parsed and applied
here one by one, and every mistake is collected with the place where it stands. Sweeps are checked one value at a
time beside the first of every other, never the full product. The overrides that Hydra gets are normalised: group
choices as `group=option`, values as `++key=value`, so `key`, `+key` and `++key` mean the same.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import version
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from dlma.config import foreign, run_names, yaml_files
from dlma.config.check import Problem, listing, problems, suggestion
from dlma.config.hydra_internals import Loader, copied, create_config_search_path, name_the_program
from dlma.config.overrides import PRIMARY, Reading, by_slot, is_group, normal, read, singles_of, told
from dlma.errors import UserError

BROKEN = (HydraException, OmegaConfBaseException, yaml.YAMLError, RecursionError)


@dataclass(frozen=True)
class Plan:
    """What the command line asks for, checked: one config, or a sweep whose first cell is `cfg`.

    launcher: the class that starts a sweep's cells; sweeper: the settings of what chooses their values
    each: composes every cell
    """

    cfg: DictConfig
    overrides: list[str]
    cells: int
    sweep_folder: Path | None
    folderless: bool
    launcher: str
    sweeper: dict[str, Any]
    each: Callable[[], Iterator[DictConfig]]


def search_path(folder: Path, extra: str | None) -> ConfigSearchPath:
    """Where YAML files are looked for: ours, Hydra's, and before both the user's `--config-dir`."""
    if extra is not None:
        _check_folder(Path(extra))
        yaml_files.check(Path(extra), [path.name for path in folder.iterdir() if path.is_dir()])
    version.setbase("1.3")
    setup_globals()
    name_the_program()
    run_names.register()
    path = create_config_search_path(str(folder.resolve()))
    if extra is not None:
        path.prepend(foreign.OTHERS, f"file://{Path(extra).resolve()}", SearchPathQuery(provider="main"))
    return path


def _check_folder(extra: Path) -> None:
    """A folder of the user's own adds options; it takes the place neither of the primary config nor of Hydra's own."""
    if not extra.is_dir():
        raise UserError(f"--config-dir {extra}: no such folder")
    for name in (f"{PRIMARY}.yaml", f"{PRIMARY}.yml", foreign.HYDRA):
        if (extra / name).exists():
            raise UserError(
                f"--config-dir {extra}: its {name} would say how programs are started; give Hydra's settings on the "
                "command line, and take it out (a whole conf/ of your own is --config-path)"
            )


def refuse_foreign(path: ConfigSearchPath, lines: list[str]) -> None:
    """Raise UserError where a config file makes settings of Hydra's that only the command line may make."""
    reading = Reading(Loader(path))
    reading.loader.ensure_main_config_source_available()
    asked = by_slot(override for line in lines if (override := read(line, reading)) and is_group(override))
    singles = {slot: singles_of(each) if each.is_sweep_override() else [each] for slot, each in asked.items()}
    first = {slot: each[0] for slot, each in singles.items()}
    for chosen in [first, *({**first, slot: one} for slot, each in singles.items() for one in each[1:])]:
        _note_foreign([normal(override, reading) for override in chosen.values()], reading)
    if reading.mistakes:
        raise UserError(listing(list(reading.mistakes)))


def _note_foreign(groups: list[str], reading: Reading) -> bool:
    """Whether files of this composition make settings of Hydra's that they may not, or do not compose; it is noted."""
    try:
        found = list(foreign.mistakes(reading.loader, groups))
    except BROKEN as reason:
        found = [in_words(reason)]
    for line in found:
        reading.add(line)
    return bool(found)


def plan(path: ConfigSearchPath, lines: list[str], multirun: bool) -> Plan:
    """Check a whole command line; raises one UserError with every mistake in it."""
    reading = Reading(Loader(path))
    reading.loader.ensure_main_config_source_available()
    written = by_slot(override for line in lines if (override := read(line, reading)))
    said = [override for override in written.values() if foreign.is_command(override)]
    singles = [one for each in said for one in (singles_of(each) if each.is_sweep_override() else [each])]
    reading.commands = {str(single.value()) for single in singles}
    # The mistakes of the first reading may be none: an experiment's own sweep may give what is missing.
    first = Reading(reading.loader, unread=reading.unread, commands=reading.commands)
    cell, cfg = _first_cell(written, first)
    multirun = multirun or (cfg is not None and cfg.hydra.mode == RunMode.MULTIRUN)
    params = OmegaConf.select(cfg, "hydra.sweeper.params") if multirun and cfg is not None else None
    asked = _with_own_sweep(params or {}, written, reading)
    if params:
        cell, cfg = _first_cell(asked, reading)
    else:
        reading.mistakes |= first.mistakes
    sweeps = {slot: singles_of(override) for slot, override in asked.items() if override.is_sweep_override()}
    _refuse_folders(asked, multirun, reading)
    _refuse_unread(asked, reading)
    _check_sweeps(cell, cfg, sweeps, reading) if multirun else _refuse_sweeps(asked, reading)
    if reading.mistakes or cfg is None:  # a config that does not compose is a mistake too
        raise UserError(listing(list(reading.mistakes)))
    single: tuple[list[str], Path | None, dict[str, Any]] = ["hydra.mode=RUN"], None, {}
    settings, folder, sweeper = _sweep_settings(written, sweeps, reading) if multirun else single
    overrides = [*(normal(override, reading) for override in asked.values()), *settings]

    def each() -> Iterator[DictConfig]:
        return _cells(cell, sweeps, reading)

    cells = math.prod(len(singles) for singles in sweeps.values())
    launcher = str(cfg.hydra.launcher["_target_"])
    return Plan(_without_hydra(cfg), overrides, cells, folder, _looks_only(cell, cfg, reading), launcher, sweeper, each)


def _with_own_sweep(params: DictConfig | dict, written: dict[str, Override], reading: Reading) -> dict[str, Override]:
    """What an experiment gives to the sweeper, with the command line standing over it."""
    own = {key.lstrip("+"): f"{key}={params[key]}" for key in map(str, params)}
    both = {slot: written.get(slot) or read(line, reading) for slot, line in own.items()}
    found = {slot: override for slot, override in both.items() if override is not None}
    for slot in [slot for slot in found.keys() - written.keys() if foreign.is_hydra(found[slot])]:
        reading.add(f"hydra.sweeper.params.{slot}: {foreign.REFUSED}")
        del found[slot]
    return found | written


def _looks_only(cell: dict[str, Override], cfg: DictConfig, reading: Reading) -> bool:
    """Whether the mode leaves no run folder, wherever the command line would put one."""
    if "hydra.run.dir" in cell:
        cfg = _compose({slot: override for slot, override in cell.items() if slot != "hydra.run.dir"}, reading) or cfg
    return cast(dict, OmegaConf.to_container(cfg.hydra.run, resolve=False))["dir"] == ""


def _cells(cell: dict[str, Override], sweeps: dict[str, list[Override]], reading: Reading) -> Iterator[DictConfig]:
    """The config of every cell, in the order of the sweep; raises UserError for one that does not compose."""
    for chosen in itertools.product(*sweeps.values()):
        cfg = _compose(cell | dict(zip(sweeps, chosen, strict=True)), reading)
        if cfg is None or reading.mistakes:
            raise UserError(listing(list(reading.mistakes)))
        yield _without_hydra(cfg)


def _refuse_sweeps(asked: dict[str, Override], reading: Reading) -> None:
    for slot, override in asked.items():
        if override.is_sweep_override():
            reading.add(
                f"{told(override)}: several values need -m (a sweep); a list is written "
                f"{slot}=[a,b], a text with commas \"{slot}='a,b'\""
            )


def _refuse_folders(asked: dict[str, Override], multirun: bool, reading: Reading) -> None:
    """A folder that this command would not use."""
    unused = {
        "hydra.sweep.subdir": "cells are named by what varies; the sweep's folder is hydra.sweep.dir=..., or name=...",
        "hydra.run.dir": "is the folder of a single run; a sweep's (-m) is hydra.sweep.dir=..., or name=...",
        "hydra.sweep.dir": "is the folder of a sweep (-m); a single run's is hydra.run.dir=..., or name=...",
    }
    unused.pop("hydra.sweep.dir" if multirun else "hydra.run.dir")
    for slot in asked.keys() & unused.keys():
        reading.add(f"{slot}: {unused[slot]}")
    for slot in asked.keys() & {"hydra.run.dir", "hydra.sweep.dir"}:
        if not str(asked[slot].value() or "").strip():
            reading.add(f"{slot}: is empty; name a folder, or leave it out")
    for slot in (slot for slot in asked if slot.startswith("hydra.sweeper.params")):
        reading.add(f"{slot}: is for an experiment's file; on the command line a sweep is -m key=a,b")


def _refuse_unread(asked: dict[str, Override], reading: Reading) -> None:
    """How pairs are made and scored, where they come scored from a file."""
    path = asked.get("scored.path")
    every = [] if path is None else singles_of(path) if path.is_sweep_override() else [path]
    if not every or any(single.value() is None for single in every):
        return
    for slot, override in asked.items():
        if slot.split(".")[0] in ("pairs", "scorer"):
            reading.add(f"{told(override)}: says nothing to the pairs of scored.path, which are made and scored")


def _check_sweeps(
    cell: dict[str, Override], cfg: DictConfig | None, sweeps: dict[str, list[Override]], reading: Reading
) -> None:
    """Every value beside the first of every other key, and that each cell has a folder of its own."""
    for slot, singles in sweeps.items():
        values = [single.get_value_element_as_str().strip("'\"") for single in singles]
        for value in sorted({value for value in values if values.count(value) > 1}):
            reading.add(f"{slot}={','.join(values)}: {value} stands there twice")
        if slot == "name" or slot.startswith(run_names.APART_TREE):
            reading.add(f"{slot}={','.join(values)}: is the whole sweep's; give one value")
        composed = [cfg, *(_compose_others({**cell, slot: single}, reading) for single in singles[1:])]
        if slot == "experiment":
            _refuse_own_sweeps(singles, composed, reading)


def _refuse_own_sweeps(singles: list[Override], composed: list[DictConfig | None], reading: Reading) -> None:
    for single, cfg in zip(singles, composed, strict=True):
        if cfg is not None and OmegaConf.select(cfg, "hydra.sweeper.params"):
            line = told(single)
            reading.add(f"{line}: brings a sweep of its own; run experiments with sweeps one after the other")


def _first_cell(asked: dict[str, Override], reading: Reading) -> tuple[dict[str, Override], DictConfig | None]:
    """The overrides of the first cell by slot, and its config; without the experiment if that is broken."""
    cell = {slot: singles_of(each)[0] if each.is_sweep_override() else each for slot, each in asked.items()}
    cfg = _compose_others(cell, reading)
    if cfg is None and "experiment" in cell:
        _compose({slot: override for slot, override in cell.items() if slot != "experiment"}, reading)
    return cell, cfg


def _compose_others(cell: dict[str, Override], reading: Reading) -> DictConfig | None:
    """As `_compose`, once the files of others that it is made of were seen to leave Hydra's settings alone."""
    others = any(source.provider == foreign.OTHERS for source in reading.loader.get_sources())
    groups = [normal(o, reading) for o in cell.values() if is_group(o)]
    if (others or "experiment" in cell) and _note_foreign(groups, reading):
        return None
    return _compose(cell, reading)


def _compose(cell: dict[str, Override], reading: Reading) -> DictConfig | None:
    """One cell's config, its mistakes noted; None where the defaults list itself does not compose."""
    groups = [o for o in cell.values() if is_group(o)]
    lines = [normal(o, reading) for o in groups]
    try:
        cfg = reading.loader.compose(PRIMARY, lines)
    except BROKEN as reason:
        reading.add(in_words(reason))
        return None
    for override in (o for o in cell.values() if not is_group(o)):
        _apply(override, cfg, reading)
    bare = _without_hydra(cfg)
    wrong = [*problems(bare), *run_names.problems(bare)]
    for problem in wrong or _commands_of_files(bare, reading):
        if problem.key in reading.unread:  # what was written for it is the mistake, and is reported
            continue
        reading.add(f"{problem}{_place(problem.key, cell, lines, reading)}")
    return cfg


def _commands_of_files(cfg: DictConfig, reading: Reading) -> list[Problem]:
    """Commands that the command line itself does not say."""
    found = foreign.commands(OmegaConf.to_container(cfg, resolve=True))
    return [Problem(key, foreign.COMMAND_REFUSED) for key, command in found if command not in reading.commands]


def _without_hydra(cfg: DictConfig) -> DictConfig:
    bare = copied(cfg)
    with open_dict(bare):
        del bare["hydra"]
    return bare


def _apply(override: Override, cfg: DictConfig, reading: Reading) -> None:
    """Set one value, whether or not its key exists: what should not be there is found by the check."""
    if not (override.is_delete() or override.is_hydra_override()):
        override = dataclasses.replace(override, type=OverrideType.FORCE_ADD)
    try:
        Loader._apply_overrides_to_config([override], cfg)
    except (*BROKEN, AssertionError):  # OmegaConf asserts that what holds a key is no null
        key = override.key_or_group
        hint = suggestion(key, _keys(cfg)) if OmegaConf.select(cfg, key) is None else ""
        reading.add(f"{told(override)}: cannot be set{hint or ': no such key, or a value of another type'}")


def _keys(node: DictConfig, path: str = "") -> list[str]:
    """Every dotted key of a config as it stands."""
    found = []
    for key in map(str, node):
        found.append(f"{path}{key}")
        if not (OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key)):
            child = node[key]
            found += _keys(child, f"{path}{key}.") if OmegaConf.is_dict(child) else []
    return found


def _place(key: str, cell: dict[str, Override], lines: list[str], reading: Reading) -> str:
    """Where a key was written: on the command line, or in the last YAML file of the defaults list to name it."""
    for written in (name for name, override in cell.items() if not is_group(override)):
        if key == written or key.startswith(f"{written}.") or written.startswith(f"{key}."):
            return " [command line]"
    for entry in reversed(reading.loader.chosen(PRIMARY, lines)):
        loaded = reading.loader.files.load_config(entry.config_path) if entry.config_path else None
        inside = key if not entry.package else key.removeprefix(f"{entry.package}.")
        if loaded is None or (entry.package and inside == key):
            continue
        if _writes(loaded, inside):
            return f" [{loaded.path.removeprefix('file://')}/{entry.config_path}.yaml]"
    return ""


def _writes(loaded: ConfigResult, key: str) -> bool:
    """Whether a YAML file itself writes this key, whatever its value."""
    node = OmegaConf.to_container(loaded.config, resolve=False)
    for part in key.split("."):
        if not (isinstance(node, dict) and part in node):
            return False
        node = node[part]
    return True


def in_words(reason: Exception) -> str:
    """Hydra's message about a defaults list or a YAML file, on one line."""
    if isinstance(reason, RecursionError):
        return "the defaults list of a config file leads back to that file: take the entry out"
    lines = [line.strip() for line in str(reason).split("Config search path")[0].splitlines()]
    return " ".join(line for line in lines if line)


def _sweep_settings(
    written: dict[str, Override], sweeps: dict[str, list[Override]], reading: Reading
) -> tuple[list[str], Path, dict[str, Any]]:
    """Hydra settings of a sweep: what does not vary stays out of the cells' names; one folder for all cells.

    The sweep itself is in the overrides whole, so the experiment's own part is taken out of the config.
    """
    fixed = sorted({override.key_or_group for slot, override in written.items() if slot not in sweeps})
    settings = [
        "hydra.mode=MULTIRUN",
        f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]",
    ]
    lines = [normal(override, reading) for override in written.values()] + settings
    try:
        hydra = reading.loader.load_configuration(PRIMARY, lines, RunMode.MULTIRUN).hydra
        folder, sweeper = str(hydra.sweep.dir), cast(dict, OmegaConf.to_container(hydra.sweeper, resolve=True))
    except BROKEN as reason:
        raise UserError(in_words(reason)) from None
    quoted = folder.replace("\\", "\\\\").replace("'", "\\'")
    return [*settings, "hydra.sweeper.params=null", f"hydra.sweep.dir='{quoted}'"], Path(folder), sweeper
