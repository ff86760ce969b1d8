"""What config files may not say: they may describe an experiment, not how programs are started.

Hydra builds callbacks, launchers, sweepers and log handlers from whatever `hydra:` names. So a YAML file, unless it is
the primary config or below its hydra/, may say only what _is_allowed lets through; the command line may say anything.
And a command that starts a server (COMMAND, of any sampler) is the command line's own, letter by letter.
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
COMMAND = "sampler.start"
_SAMPLERS = "dlma.sampler."
COMMAND_REFUSED = "starts a program, so no config file may say it: give it on the command line, sampler.start=..."
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


def is_command(override: Override) -> bool:
    """Whether an override gives a command that starts a server."""
    return f".{override.key_or_group}".endswith(f".{COMMAND}")


def commands(tree: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every command that starts a server in a composed config: wherever a sampler stands, by the key `start`."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inside:
        name = f"{path}.{key}" if path else str(key)
        sampler = isinstance(tree, dict) and str(tree.get("_target_")).startswith(_SAMPLERS)
        if key == "start" and sampler and value is not None:
            yield name, value
        yield from commands(value, name)


def is_hydra(override: Override) -> bool:
    """Whether an override speaks to Hydra, by its key, its group or the package that its group is put into."""
    package = (override.package or "").removeprefix("_global_.")
    return HYDRA in (override.key_or_group.split("/")[0].split(".")[0], package.split(".")[0])
