"""What dlma needs of Hydra beyond its public interface: the one place to look at when Hydra is upgraded.

Hydra 1.3: the loader composes without a run, the parser knows the command line's own flags, the search path is a list.
Composing is most of what a small command does. So a file is parsed once in a process and a choice of files is merged
once, for as long as these files hold the same text; what is kept is pickled, and each caller has a copy of its own.
"""

import copy
import io
import os
import pickle
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import yaml
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime
from hydra.errors import ConfigCompositionException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException
from yaml.constructor import SafeConstructor
from yaml.cyaml import CParser
from yaml.resolver import Resolver

__all__ = [
    "Hydra",
    "Loader",
    "copied",
    "create_config_search_path",
    "get_args_parser",
    "main_hydra",
    "name_the_program",
]

PROGRAM = "dlma"
KEPT = 500  # choices of files, of some 40 kB each
_parsed: dict[tuple[str, ...], Callable[[], ConfigResult]] = {}  # by place, name and text of a file
_composed: dict[
    tuple[object, ...], tuple[dict[str, str | None], Callable[[], DictConfig]]
] = {}  # with the texts that it was made of


_map_of_choices = defaults_list._create_interpolation_map


def _map_where_it_is_read(overrides: Any, entries: list[InputDefault], self_added: bool) -> DictConfig | None:
    """Hydra's map of all choices, for entries of a defaults list that name another's choice (`${...}`), and no others.

    Hydra makes it for every file that has a defaults list, which is a quarter of the time of composing.
    """
    needed = any(entry.is_interpolation() for entry in entries)
    return _map_of_choices(overrides, entries, self_added) if needed else None


defaults_list._create_interpolation_map = _map_where_it_is_read  # type: ignore[assignment]


def name_the_program() -> None:
    """Let Hydra know the program's name, which every composed config holds."""
    JobRuntime.instance().set("name", PROGRAM)


def main_hydra(path: ConfigSearchPath) -> Hydra:
    """Hydra as its own entry has it, with our loader."""
    hydra = Hydra(PROGRAM, Loader(path))
    GlobalHydra.instance().initialize(hydra)
    return hydra


def copied(cfg: DictConfig) -> DictConfig:
    """A deep copy, in a fraction of the time that `copy.deepcopy` takes."""
    return _copies(cfg)()


def _copies(value: Any) -> Callable[[], Any]:
    """What gives a copy of its own of a value at each call.

    Pickle is the fast way. It cannot name a class of a plugin whose module was imported a second time since, as a
    process of joblib does.
    """
    try:
        kept = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except pickle.PicklingError:
        return lambda: copy.deepcopy(value)
    return lambda: pickle.loads(kept)


_OmegaLoader: Any = get_yaml_loader()


class _YamlLoader(CParser, _OmegaLoader):
    """OmegaConf's loader of YAML on the parser that is written in C."""

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)


def read_yaml(text: str, name: str | None = None) -> object:
    """What OmegaConf reads in a text; what is wrong with it is said by its own parser, of a file by its name."""
    try:
        return yaml.load(text, _YamlLoader)
    except yaml.YAMLError:
        source = io.StringIO(text)
        if name is not None:
            source.name = name
        return yaml.load(text if name is None else source, get_yaml_loader())


class _Source(FileConfigSource):
    """A folder of config files."""

    def text(self, config_path: str) -> str:
        with open(os.path.join(self.path, self._normalize_file_name(config_path)), encoding="utf-8") as file:
            return file.read()

    def load_config(self, config_path: str) -> ConfigResult:
        text = self.text(config_path)
        values = read_yaml(text, os.path.join(self.path, self._normalize_file_name(config_path)))
        return ConfigResult(
            config=OmegaConf.create(values) if isinstance(values, dict) else OmegaConf.load(io.StringIO(text)),
            path=self.full_path(),
            provider=self.provider,
            header=self._get_header_dict(text[:512]),
        )


def _text(source: ConfigSource, config_path: str) -> str:
    return source.text(config_path) if isinstance(source, _Source) else config_path


class _Files(ConfigRepository):
    """The config files on a search path; `read` notes the text of each that was asked for, None for no such file."""

    def __init__(self, path: ConfigSearchPath) -> None:
        self.read: dict[str, str | None] = {}
        super().__init__(path)

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        self.sources = [_Source(s.provider, s.path) if s.scheme() == "file" else s for s in self.sources]

    def __deepcopy__(self, memo: object) -> "_Files":
        """Hydra's copy for one composition, whose sources it may replace; `read` is the same."""
        found = _Files.__new__(_Files)
        found.sources, found.read = self.sources, self.read
        return found

    def text(self, config_path: str) -> str | None:
        """The text of a file as it stands; of one that comes with Hydra its name alone, as it does not change."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        return None if source is None else _text(source, config_path)

    def load_config(self, config_path: str) -> ConfigResult | None:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None:
            self.read[config_path] = None
            return None
        text = self.read[config_path] = _text(source, config_path)
        key = (source.provider, source.full_path(), config_path, text)
        if key not in _parsed:
            _parsed[key] = _copies(super().load_config(config_path))
        return _parsed[key]()


class Loader(ConfigLoaderImpl):
    """Hydra's loader, which merges one choice of files once: configs that differ in values share it."""

    def __init__(self, path: ConfigSearchPath) -> None:
        super().__init__(path)
        self.repository: _Files = _Files(path)
        self._chosen: dict[tuple[str, ...], list[ResultDefault]] = {}

    def compose(self, primary: str, choices: list[str]) -> DictConfig:
        """The config of the primary file with these choices of groups, for the caller to change."""
        return self.load_configuration(primary, choices, RunMode.RUN, validate_sweep_overrides=False)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """As Hydra's; values are set in a copy of what the choices of files make."""
        every = OverridesParser.create().parse_overrides(overrides)
        if validate_sweep_overrides:
            self.validate_sweep_overrides_legal(every, run_mode, from_shell)
        later = [] if any(one.is_delete() for one in every) else [one for one in every if self._is_value(one)]
        cfg = self._merged(config_name, [one.input_line or "" for one in every if one not in later], run_mode)
        try:
            self._apply_overrides_to_config(later, cfg)
            _note(every, cfg)
        except OmegaConfBaseException as reason:
            raise ConfigCompositionException().with_traceback(reason.__traceback__) from reason
        return cfg

    def _is_value(self, override: Override) -> bool:
        """Whether it sets a value and says nothing to how files are chosen."""
        if override.is_sweep_override() or override.key_or_group == "hydra.searchpath":
            return False
        return isinstance(override.value(), dict) or not self.repository.group_exists(override.key_or_group)

    def _merged(self, name: str | None, lines: list[str], run_mode: RunMode) -> DictConfig:
        key = (str(self.config_search_path), name, *lines, run_mode)
        known = _composed.get(key)
        if known is None or any(self.repository.text(path) != text for path, text in known[0].items()):
            self.repository.read.clear()
            cfg = super().load_configuration(name, lines, run_mode, validate_sweep_overrides=False)
            known = _composed[key] = dict(self.repository.read), _copies(cfg)
            if len(_composed) > KEPT:
                del _composed[next(iter(_composed))]
        return known[1]()

    def chosen(self, primary: str, choices: list[str]) -> list[ResultDefault]:
        """The entries of the defaults list with these choices of groups."""
        key = (primary, *choices)
        if key not in self._chosen:
            self._chosen[key] = self.compute_defaults_list(primary, choices, RunMode.RUN).defaults
        return self._chosen[key]

    @cached_property
    def files(self) -> CachingConfigRepository:
        """The config files as they stand, each read once; not to be changed."""
        return CachingConfigRepository(self.repository)


def _note(overrides: Sequence[Override], cfg: DictConfig) -> None:
    """Write what Hydra notes of a command line and of the process once all overrides are applied."""
    own = [one for one in overrides if not one.is_hydra_override()]
    hydra = cfg.hydra
    hydra.overrides.hydra = [one.input_line for one in overrides if one.is_hydra_override()]
    hydra.overrides.task = [one.input_line for one in own]
    with open_dict(hydra):
        for key in hydra.job.env_copy:
            hydra.job.env_set[key] = os.environ[key]
    hydra.runtime.cwd = os.getcwd()
    how = hydra.job.config.override_dirname
    hydra.job.override_dirname = get_overrides_dirname(own, how.exclude_keys, how.item_sep, how.kv_sep)
