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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
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
    written = [override for line in lines if (override := _read(line, reading))]
    cell, cfg = _first_cell(written, reading)
    multirun = multirun or (cfg is not None and cfg.hydra.mode == RunMode.MULTIRUN)
    sweeps: dict[str, list[str]] = {}
    params = _sweeper_params(cfg, reading) if multirun else []
    if multirun:
        if params:
            cell, cfg = _first_cell(params + written, reading)
        last = {override.key_or_group: override for override in params + written}  # the command line's, where both say
        sweeps = {key: _values(override) for key, override in last.items() if override.is_sweep_override()}
        _check_other_values(cell, sweeps, reading)
    else:
        _refuse_sweeps(written, reading)
    if reading.mistakes:
        raise UserError(config.listing(list(reading.mistakes)))
    fixed = sorted({override.key_or_group for override in written} - set(sweeps))
    own = {override.key_or_group: _key(override) for override in params}  # as an experiment's sweep writes them
    normal = [_normal(override, own) for override in written]
    settings, folder = _sweep_settings(normal, fixed, reading) if multirun else (["hydra.mode=RUN"], None)
    cells = math.prod(len(values) for values in sweeps.values())
    looks_only = OmegaConf.to_container(cfg.hydra.run, resolve=False)["dir"] == ""

    def each() -> Iterator[DictConfig]:
        return _cells(cell, sweeps, reading)

    return Plan(_without_hydra(cfg), [*normal, *settings], cells, folder, looks_only, each)


def _cells(cell: dict[str, Override], sweeps: dict[str, list[str]], reading: _Reading) -> Iterator[DictConfig]:
    """The config of every cell, in the order of the sweep; raises UserError for one that does not compose."""
    for values in itertools.product(*sweeps.values()):
        chosen = {key: _single(key, value, reading) for key, value in zip(sweeps, values, strict=True)}
        cfg = _compose(cell | chosen, reading)
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
        return _values(override)
    value = override.value()
    return [str(item) for item in value] if isinstance(value, list) else [override.get_value_element_as_str()]


def _values(override: Override) -> list[str]:
    """The values of a sweep; the bounds of one that is not a list of values."""
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    interval = override.value()
    return [str(interval.start), str(interval.end)]


def _refuse_sweeps(written: list[Override], reading: _Reading) -> None:
    for override in written:
        if override.is_sweep_override():
            line, key = override.input_line, override.key_or_group
            reading.add(f"{line}: several values need -m (a sweep); a list is written {key}=[a,b]")


def _first_cell(overrides: list[Override], reading: _Reading) -> tuple[dict[str, Override], DictConfig | None]:
    """The overrides of the first cell by key, and its config; without the experiment if that is broken."""
    cell = {o.key_or_group: o for o in overrides}
    for key, override in cell.items():
        if override.is_sweep_override():
            cell[key] = _single(key, _values(override)[0], reading)
    cfg = _compose(cell, reading)
    if cfg is None and "experiment" in cell:
        _compose({key: o for key, o in cell.items() if key != "experiment"}, reading)
    return cell, cfg


def _sweeper_params(cfg: DictConfig | None, reading: _Reading) -> list[Override]:
    """The overrides that an experiment gives to the sweeper; the command line stands over them."""
    params = OmegaConf.select(cfg, "hydra.sweeper.params") if cfg is not None else None
    read = [_read(f"{key}={value}", reading) for key, value in (params or {}).items()]
    return [override for override in read if override is not None]


def _check_other_values(cell: dict[str, Override], sweeps: dict[str, list[str]], reading: _Reading) -> None:
    for key, values in sweeps.items():
        for value in values[1:]:
            _compose({**cell, key: _single(key, value, reading)}, reading)


def _single(key: str, value: str, reading: _Reading) -> Override:
    return OverridesParser.create(reading.loader).parse_overrides([f"{key}={value}"])[0]


def _key(override: Override) -> str:
    """The key of an override as it is written, prefix included."""
    return (override.input_line or "").partition("=")[0]


def _normal(override: Override, own: Mapping[str, str] = MappingProxyType({})) -> str:
    """The override as Hydra gets it: prefixes no longer matter, except for a deletion and Hydra's own keys.

    A key of `own` stands as it is written there: Hydra's sweeper takes two spellings of a key for two keys.
    """
    line = override.input_line or ""
    if override.key_or_group in own and not override.is_delete():
        return f"{own[override.key_or_group]}={line.partition('=')[2]}"
    if override.is_delete() or override.is_hydra_override() or override.package is not None:
        return line
    return line.lstrip("+") if _is_group(override) else "++" + line.lstrip("+")


def _compose(cell: dict[str, Override], reading: _Reading) -> DictConfig | None:
    """One cell's config, its mistakes noted; None where the defaults list itself does not compose."""
    groups = [o for o in cell.values() if _is_group(o)]
    lines = [_normal(o) for o in groups]
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
    except BROKEN:
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


def _sweep_settings(normal: list[str], fixed: list[str], reading: _Reading) -> tuple[list[str], Path]:
    """Hydra settings of a sweep: what does not vary stays out of the cells' names; one folder for all cells."""
    settings = [
        "hydra.mode=MULTIRUN",
        f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]",
    ]
    cfg = reading.loader.load_configuration(PRIMARY, [*normal, *settings], RunMode.MULTIRUN)
    folder = str(cfg.hydra.sweep.dir)
    quoted = folder.replace("\\", "\\\\").replace("'", "\\'")
    return [*settings, f"hydra.sweep.dir='{quoted}'"], Path(folder)
