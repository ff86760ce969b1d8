"""Which of the recipe's overrides say nothing to a run: no node of its config has its value from them.

A recipe holds the values of every training that there is, and a method takes what its components name, as
`${recipe.beta}`: `method=simpo` has a beta of its own, and nothing of `sft` reads `recipe.lr`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

BY_CODE = ("max_prompt_tokens", "max_new_tokens", "score_dtype", "name", "exclusive")  # read without an interpolation
_NAMED = re.compile(r"\$\{(recipe\.[\w.]+)\}")


def unread(cfg: DictConfig, overrides: Iterable[str]) -> list[str]:
    """The overrides `recipe.KEY=VALUE` whose key no component of the config reads, in their order."""
    tree: Any = OmegaConf.to_container(cfg, resolve=False)
    read = _read(tree)
    said = [line.lstrip("+") for line in overrides]
    return [line for line in said if line.startswith("recipe.") and not _is_read(line.partition("=")[0], read)]


def _is_read(key: str, read: set[str]) -> bool:
    """Whether a key, what it lies in or a part of it is named."""
    if key.split(".")[1] in BY_CODE:
        return True
    return any(f"{key}.".startswith(f"{one}.") or f"{one}.".startswith(f"{key}.") for one in read)


def _read(tree: dict) -> set[str]:
    """The recipe's keys that the other nodes name, and those that these keys name in turn."""
    found: set[str] = set()
    waiting = [value for name, value in tree.items() if name != "recipe"]
    while waiting:
        for name in set(_names(waiting.pop())) - found:
            found.add(name)
            waiting.append(_at(tree, name))
    return found


def _names(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for inside in value.values():
                yield from _names(inside)
        case list():
            for inside in value:
                yield from _names(inside)
        case str():
            yield from _NAMED.findall(value)


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree
