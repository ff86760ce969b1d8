"""What dlma needs of Hydra beyond its public interface: the one place to look at when Hydra is upgraded.

Hydra 1.3: the loader composes without a run, the parser knows the command line's own flags, the search path is a list.
"""

import copy
from functools import cached_property

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.types import RunMode
from omegaconf import DictConfig

__all__ = ["Hydra", "Loader", "create_config_search_path", "get_args_parser"]


class Loader(ConfigLoaderImpl):
    """Hydra's loader, which composes one choice of files once: cells of a sweep that differ in values share it."""

    def __init__(self, path: ConfigSearchPath) -> None:
        super().__init__(path)
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._chosen: dict[tuple[str, ...], list[ResultDefault]] = {}

    def compose(self, primary: str, choices: list[str]) -> DictConfig:
        """The config of the primary file with these choices of groups, for the caller to change."""
        key = (primary, *choices)
        if key not in self._composed:
            self._composed[key] = self.load_configuration(primary, choices, RunMode.RUN, validate_sweep_overrides=False)
        return copy.deepcopy(self._composed[key])

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
