"""Hydra's own settings in config files: a file may describe an experiment, not how programs are started.

Hydra builds callbacks, launchers, sweepers and log handlers from whatever `hydra:` names. So a YAML file, unless it is
the primary config or below its hydra/, may say only what _is_allowed lets through; the command line may say anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from hydra.core.default_element import ConfigDefault, GroupDefault, InputDefault, ResultDefault
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from dlma.config.hydra_internals import Loader
from dlma.config.overrides import PRIMARY

HYDRA = "hydra"
OTHERS = "command-line"  # the provider of the files in --config-dir
PARAMS = ("hydra", "sweeper", "params")
REFUSED = (
    "a config file may not set this, the command line may; of Hydra's settings files set only hydra.sweeper.params, "
    "hydra.mode, and hydra.run.dir to nothing"
)


def mistakes(loader: Loader, groups: list[str]) -> Iterator[str]:
    """One line for each setting of Hydra that a file of this composition may not make.

    groups: the choices of options on the command line
    """
    for entry in loader.chosen(PRIMARY, groups):
        loaded = loader.files.load_config(entry.config_path) if entry.config_path else None
        if loaded is not None and not _is_ours(entry, loaded):
            file = f"{loaded.path.removeprefix('file://')}/{entry.config_path}.yaml"
            yield from (f"{key}: {REFUSED} [{file}]" for key in _set(entry, loaded))


def _is_ours(entry: ResultDefault, loaded: ConfigResult) -> bool:
    """Whether it is Hydra's or a plugin's, or the primary folder's config.yaml or hydra/."""
    if loaded.provider == "main":
        path = entry.config_path or ""
        return path == PRIMARY or path.startswith(f"{HYDRA}/")
    return loaded.provider != OTHERS


def _set(entry: ResultDefault, loaded: ConfigResult) -> Iterator[str]:
    """The settings of Hydra that a file makes and may not: by its keys, wherever they are put, or by its defaults."""
    package = entry.package or ""
    above = tuple(package.split(".")) if package else ()
    if above[:1] == (HYDRA,):
        yield package
        return
    for path, value in _leaves(OmegaConf.to_container(loaded.config, resolve=False), above):
        if path[:1] == (HYDRA,) and not _is_allowed(path, value):
            yield ".".join(path)
    for default in loaded.defaults_list or ():
        if (found := _hydra_default(default)) is not None:
            yield found


def _leaves(node: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    if not (isinstance(node, dict) and node):
        yield path, node
        return
    for key, value in node.items():
        yield from _leaves(value, (*path, *str(key).split(".")))


def _is_allowed(path: tuple[str, ...], value: object) -> bool:
    if path == (*PARAMS[:1], "run", "dir"):
        return value == ""
    return path[:3] == PARAMS or path == (HYDRA, "mode")


def _hydra_default(default: InputDefault) -> str | None:
    """An entry of a defaults list that chooses an option of Hydra's or puts something among its settings."""
    name = (
        default.group
        if isinstance(default, GroupDefault)
        else default.path
        if isinstance(default, ConfigDefault)
        else None
    )
    package = (default.package or "").removeprefix("_global_.")
    if name is not None and HYDRA in (name.lstrip("/").split("/")[0], package.split(".")[0]):
        return name.lstrip("/")
    return None


def is_hydra(override: Override) -> bool:
    """Whether an override speaks to Hydra, by its key, its group or the package that its group is put into."""
    package = (override.package or "").removeprefix("_global_.")
    return HYDRA in (override.key_or_group.split("/")[0].split(".")[0], package.split(".")[0])
