"""What a config leaves to the machine (`dtype: auto`), settled once for a run or a whole sweep.

The choice stands in the folder of the run or sweep from its first start on: a later start, of whatever cell and on
whatever machine, keeps it. In the config it takes the place of `auto`, so that keys and config.yaml have the type.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock
from omegaconf import DictConfig, ListConfig, OmegaConf

from dlma import files
from dlma.model.compute_dtype import AUTO, TYPES, Choice
from dlma.runs.folder import CHOSEN

_KEY = "dtype"


def left_open(cfg: DictConfig) -> list[str]:
    """The dotted keys of the types that are written as `auto`; those that follow another key are not among them."""
    return list(_open(cfg, ""))


def _open(node: DictConfig | ListConfig, path: str) -> Iterator[str]:
    keys = range(len(node)) if isinstance(node, ListConfig) else list(node)
    for key in keys:
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        value, place = node[key], f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}".lstrip(".")
        if OmegaConf.is_config(value):
            yield from _open(value, place)
        elif key == _KEY and value == AUTO:
            yield place


def settle(cfg: DictConfig, choose: Callable[[], Choice], folder: Path | None, of: str) -> str:
    """Write the choice into the config in place of every `auto`; why it was made, or nothing where none is there.

    folder: of the run or sweep, which keeps it; None: nothing is kept
    of: what it was chosen for, such as a model: a sweep over several has a choice for each
    """
    keys = left_open(cfg)
    if not keys:
        return ""
    choice = choose() if folder is None else _kept(folder, of, choose)
    for key in keys:
        OmegaConf.update(cfg, key, choice.dtype)
    return choice.why


def _kept(folder: Path, of: str, choose: Callable[[], Choice]) -> Choice:
    with files.guarded(folder, "hydra.run.dir"):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{CHOSEN}.lock"):
            every = files.read_json(folder / CHOSEN)
            choice = _choice_in(every.get(of))
            if choice is None:
                choice = choose()
                files.write_json(folder / CHOSEN, every | {of: dataclasses.asdict(choice)})
    return choice


def _choice_in(known: object) -> Choice | None:
    whole = isinstance(known, dict) and known.keys() == {"dtype", "why"} and known["dtype"] in TYPES
    return Choice(**known) if isinstance(known, dict) and whole else None
