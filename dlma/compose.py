"""From the command line to a checked config, before Hydra runs and before anything heavy is imported.

Hydra stops at the first mistake and lets `+key` and YAML typos through, so every override is parsed and applied
here one by one, and every mistake is collected with the place where it stands. Sweeps are checked one value at a
time beside the first of every other, never the full product. The overrides that Hydra gets are normalised: group
choices as `group=option`, values as `++key=value`, so `key`, `+key` and `++key` mean the same.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.default_element import GroupDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, ValueType
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from dlma import config, names
from dlma.errors import UserError

PRIMARY = "config"
BROKEN = (HydraException, OmegaConfBaseException, yaml.YAMLError)


@dataclass(frozen=True)
class Plan:
    """What the command line asks for, checked: one config, or a sweep whose first cell is `cfg`.

    each: composes every cell
    """

    cfg: DictConfig
    overrides: list[str]
    cells: int
    sweep_folder: Path | None
    folderless: bool
    each: Callable[[], Iterator[DictConfig]]


@dataclass
class _Reading:
    """Every mistake found so far; a dict keeps the order, and each line once."""

    loader: ConfigLoaderImpl
    mistakes: dict[str, None] = field(default_factory=dict)

    def add(self, line: str) -> None:
        self.mistakes[line] = None

    @cached_property
    def groups(self) -> set[str]:
        """The groups of the defaults list."""
        defaults = self.loader.repository.load_config(PRIMARY).defaults_list
        return {default.group for default in defaults if isinstance(default, GroupDefault)}


def search_path(folder: Path, extra: str | None) -> ConfigSearchPath:
    """Where YAML files are looked for: ours, Hydra's, and before both the user's `--config-dir`."""
    if extra is not None and not Path(extra).is_dir():
        raise UserError(f"--config-dir {extra}: no such folder")
    version.setbase("1.3")
    setup_globals()
    names.register()
    path = create_config_search_path(str(folder.resolve()))
    if extra is not None:
        path.prepend("command-line", f"file://{Path(extra).resolve()}", SearchPathQuery(provider="main"))
    return path


def plan(path: ConfigSearchPath, lines: list[str], multirun: bool) -> Plan:
    """Check a whole command line; raises one UserError with every mistake in it."""
    reading = _Reading(ConfigLoaderImpl(path))
    reading.loader.ensure_main_config_source_available()
    written = _by_slot(override for line in lines if (override := _read(line, reading)))
    first = _Reading(
        reading.loader
    )  # where an experiment sweeps, this is not yet a cell: what it finds may be no mistake
    cell, cfg = _first_cell(written, first)
    multirun = multirun or (cfg is not None and cfg.hydra.mode == RunMode.MULTIRUN)
    params = OmegaConf.select(cfg, "hydra.sweeper.params") if multirun and cfg is not None else None
    asked = _with_own_sweep(params or {}, written, reading)
    if params:
        cell, cfg = _first_cell(asked, reading)
    else:
        reading.mistakes |= first.mistakes
    sweeps = {slot: _singles(override) for slot, override in asked.items() if override.is_sweep_override()}
    _refuse_folders(asked, multirun, reading)
    _refuse_unread(asked, reading)
    _check_sweeps(cell, sweeps, reading) if multirun else _refuse_sweeps(asked, reading)
    if reading.mistakes:
        raise UserError(config.listing(list(reading.mistakes)))
    settings, folder = _sweep_settings(written, sweeps, reading) if multirun else (["hydra.mode=RUN"], None)
    overrides = [*(_normal(override, reading) for override in asked.values()), *settings]

    def each() -> Iterator[DictConfig]:
        return _cells(cell, sweeps, reading)

    cells = math.prod(len(singles) for singles in sweeps.values())
    return Plan(_without_hydra(cfg), overrides, cells, folder, _looks_only(cell, reading), each)


def _by_slot(overrides: Iterable[Override]) -> dict[str, Override]:
    """Overrides by what they set, a group's package included; of two that set the same, the later one."""
    return {_slot(override): override for override in overrides}


def _slot(override: Override) -> str:
    return override.get_key_element().lstrip("+~")


def _with_own_sweep(params: DictConfig | dict, written: dict[str, Override], reading: _Reading) -> dict[str, Override]:
    """What an experiment gives to the sweeper, with the command line standing over it."""
    own = {str(key).lstrip("+"): f"{key}={value}" for key, value in params.items()}
    read = {slot: written.get(slot) or _read(line, reading) for slot, line in own.items()}
    return {slot: override for slot, override in read.items() if override is not None} | written


def _looks_only(cell: dict[str, Override], reading: _Reading) -> bool:
    """Whether the mode leaves no run folder, wherever the command line would put one."""
    cfg = _compose({slot: override for slot, override in cell.items() if slot != "hydra.run.dir"}, reading)
    return OmegaConf.to_container(cfg.hydra.run, resolve=False)["dir"] == ""


def _cells(cell: dict[str, Override], sweeps: dict[str, list[Override]], reading: _Reading) -> Iterator[DictConfig]:
    """The config of every cell, in the order of the sweep; raises UserError for one that does not compose."""
    for chosen in itertools.product(*sweeps.values()):
        cfg = _compose(cell | dict(zip(sweeps, chosen, strict=True)), reading)
        if cfg is None or reading.mistakes:
            raise UserError(config.listing(list(reading.mistakes)))
        yield _without_hydra(cfg)


def _read(line: str, reading: _Reading) -> Override | None:
    """Parse one override; what does not parse, or names no option of its group, is a mistake and left out."""
    try:
        override = OverridesParser.create(reading.loader).parse_overrides([line])[0]
    except HydraException:
        hint = "" if "=" in line else f"; did you mean {line}=...?"
        reading.add(f"{line}: not an override; write key=value, quoted where the value has spaces or commas{hint}")
        return None
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP and not _is_group(override):
        reading.add(f"{line}: glob is for the options of a group")
        return None
    return None if _is_group(override) and not _known_options(override, reading) else override


def _is_group(override: Override) -> bool:
    return override.config_loader.repository.group_exists(override.key_or_group)


def _known_options(override: Override, reading: _Reading) -> bool:
    group = override.key_or_group
    available = reading.loader.get_group_options(group)
    wrong = [v for v in _choices(override) if v != "" and not _exists(group, v, reading)]
    for value in wrong:
        if value in ("null", "None"):
            reading.add(f"{override.input_line}: leave {group} out, and it is what it is by default")
            continue
        near = difflib.get_close_matches(value, available, n=1)
        hint = f"; did you mean {group}={near[0]}?" if near else ""
        reading.add(f"{group}={value}: no such option{hint} (there are {', '.join(available)})")
    return not wrong


def _exists(group: str, option: str, reading: _Reading) -> bool:
    """Whether a group has an option, which may lie in a folder of it: `lab_pairs/kind_cruel`."""
    folder, _, name = option.rpartition("/")
    return name in reading.loader.get_group_options(f"{group}/{folder}" if folder else group)


def _choices(override: Override) -> list[str]:
    """The values of an override as text: several for a sweep or a list, none for a deletion."""
    if override.is_delete():
        return []
    if override.is_sweep_override():
        return [choice for single in _singles(override) for choice in _choices(single)]
    value = override.value()
    return [str(item) for item in value] if isinstance(value, list) else [override.get_value_element_as_str()]


def _singles(override: Override) -> list[Override]:
    """One override for each value of a sweep; for the bounds of one that is not a list of values."""
    parser = OverridesParser.create(override.config_loader)
    return parser.parse_overrides([f"{override.get_key_element()}={value}" for value in _values(override)])


def _values(override: Override) -> list[str]:
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    interval = override.value()
    return [str(interval.start), str(interval.end)]


def _refuse_sweeps(asked: dict[str, Override], reading: _Reading) -> None:
    for slot, override in asked.items():
        if override.is_sweep_override():
            reading.add(
                f"{override.input_line}: several values need -m (a sweep); a list is written "
                f"{slot}=[a,b], a text with commas \"{slot}='a,b'\""
            )


def _refuse_folders(asked: dict[str, Override], multirun: bool, reading: _Reading) -> None:
    """A folder that this command would not use."""
    unused = {
        "hydra.sweep.subdir": "cells are named by what varies; the sweep's folder is hydra.sweep.dir=..., or name=...",
        "hydra.run.dir": "is the folder of a single run; a sweep's (-m) is hydra.sweep.dir=..., or name=...",
        "hydra.sweep.dir": "is the folder of a sweep (-m); a single run's is hydra.run.dir=..., or name=...",
    }
    unused.pop("hydra.sweep.dir" if multirun else "hydra.run.dir")
    for slot in asked.keys() & unused.keys():
        reading.add(f"{slot}: {unused[slot]}")
    for slot in (slot for slot in asked if slot.startswith("hydra.sweeper.params")):
        reading.add(f"{slot}: is for an experiment's file; on the command line a sweep is -m key=a,b")


def _refuse_unread(asked: dict[str, Override], reading: _Reading) -> None:
    """How pairs are made and scored, where they come scored from a file."""
    path = asked.get("scored.path")
    every = [] if path is None else _singles(path) if path.is_sweep_override() else [path]
    if not every or any(single.value() is None for single in every):
        return
    for slot, override in asked.items():
        if slot.split(".")[0] in ("pairs", "scorer"):
            reading.add(f"{override.input_line}: says nothing to the pairs of scored.path, which are made and scored")


def _check_sweeps(cell: dict[str, Override], sweeps: dict[str, list[Override]], reading: _Reading) -> None:
    """Every value beside the first of every other key, and that each cell has a folder of its own."""
    for slot, singles in sweeps.items():
        values = [single.get_value_element_as_str().strip("'\"") for single in singles]
        for value in sorted({value for value in values if values.count(value) > 1}):
            reading.add(f"{slot}={','.join(values)}: {value} stands there twice")
        if slot == "name" or slot.startswith(names.APART_TREE):
            reading.add(f"{slot}={','.join(values)}: is the whole sweep's; give one value")
        for single in singles[1:]:
            _compose({**cell, slot: single}, reading)
    for single in sweeps.get("experiment", []):
        cfg = _compose({**cell, "experiment": single}, reading)
        if cfg is not None and OmegaConf.select(cfg, "hydra.sweeper.params"):
            reading.add(
                f"{single.input_line}: brings a sweep of its own; run experiments with sweeps one after the other"
            )


def _first_cell(asked: dict[str, Override], reading: _Reading) -> tuple[dict[str, Override], DictConfig | None]:
    """The overrides of the first cell by slot, and its config; without the experiment if that is broken."""
    cell = {slot: _singles(each)[0] if each.is_sweep_override() else each for slot, each in asked.items()}
    cfg = _compose(cell, reading)
    if cfg is None and "experiment" in cell:
        _compose({slot: override for slot, override in cell.items() if slot != "experiment"}, reading)
    return cell, cfg


def _normal(override: Override, reading: _Reading) -> str:
    """The override as Hydra gets it: prefixes no longer matter, except where they mean something.

    They do for a deletion, for Hydra's own keys, for a group that is put into a package, and for one that is not in
    the defaults list.
    """
    line = override.input_line or ""
    if override.is_delete() or override.is_hydra_override() or override.package is not None:
        return line
    if not _is_group(override):
        return "++" + line.lstrip("+")
    return line.lstrip("+") if override.key_or_group in reading.groups else line.replace("++", "+", 1)


def _compose(cell: dict[str, Override], reading: _Reading) -> DictConfig | None:
    """One cell's config, its mistakes noted; None where the defaults list itself does not compose."""
    groups = [o for o in cell.values() if _is_group(o)]
    lines = [_normal(o, reading) for o in groups]
    try:
        cfg = reading.loader.load_configuration(PRIMARY, lines, RunMode.RUN, validate_sweep_overrides=False)
    except BROKEN as reason:
        reading.add(in_words(reason))
        return None
    for override in (o for o in cell.values() if not _is_group(o)):
        _apply(override, cfg, reading)
    for problem in config.problems(_without_hydra(cfg)):
        reading.add(f"{problem}{_place(problem.key, cell, lines, reading)}")
    return cfg


def _without_hydra(cfg: DictConfig) -> DictConfig:
    bare = cfg.copy()
    with open_dict(bare):
        del bare["hydra"]
    return bare


def _apply(override: Override, cfg: DictConfig, reading: _Reading) -> None:
    """Set one value, whether or not its key exists: what should not be there is found by the check."""
    if not (override.is_delete() or override.is_hydra_override()):
        override = dataclasses.replace(override, type=OverrideType.FORCE_ADD)
    try:
        ConfigLoaderImpl._apply_overrides_to_config([override], cfg)
    except (*BROKEN, AssertionError):  # OmegaConf asserts that what holds a key is no null
        key = override.key_or_group
        hint = config.suggestion(key, _keys(cfg)) if OmegaConf.select(cfg, key) is None else ""
        reading.add(f"{override.input_line}: cannot be set{hint or ': no such key, or a value of another type'}")


def _keys(node: DictConfig, path: str = "") -> list[str]:
    """Every dotted key of a config as it stands."""
    found = []
    for key in node:
        found.append(f"{path}{key}")
        if not (OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key)):
            child = node[key]
            found += _keys(child, f"{path}{key}.") if OmegaConf.is_dict(child) else []
    return found


def _place(key: str, cell: dict[str, Override], lines: list[str], reading: _Reading) -> str:
    """Where a key was written: on the command line, or in the last YAML file of the defaults list to name it."""
    for written in (name for name, override in cell.items() if not _is_group(override)):
        if key == written or key.startswith(f"{written}.") or written.startswith(f"{key}."):
            return " [command line]"
    defaults = reading.loader.compute_defaults_list(PRIMARY, lines, RunMode.RUN).defaults
    for entry in reversed(defaults):
        loaded = reading.loader.repository.load_config(entry.config_path) if entry.config_path else None
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
    lines = [line.strip() for line in str(reason).split("Config search path")[0].splitlines()]
    return " ".join(line for line in lines if line)


def _sweep_settings(
    written: dict[str, Override], sweeps: dict[str, list[Override]], reading: _Reading
) -> tuple[list[str], Path]:
    """Hydra settings of a sweep: what does not vary stays out of the cells' names; one folder for all cells.

    The sweep itself is in the overrides whole, so the experiment's own part is taken out of the config.
    """
    fixed = sorted({override.key_or_group for slot, override in written.items() if slot not in sweeps})
    settings = [
        "hydra.mode=MULTIRUN",
        f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]",
    ]
    normal = [_normal(override, reading) for override in written.values()]
    try:
        folder = str(reading.loader.load_configuration(PRIMARY, [*normal, *settings], RunMode.MULTIRUN).hydra.sweep.dir)
    except BROKEN as reason:
        raise UserError(in_words(reason)) from None
    quoted = folder.replace("\\", "\\\\").replace("'", "\\'")
    return [*settings, "hydra.sweeper.params=null", f"hydra.sweep.dir='{quoted}'"], Path(folder)
