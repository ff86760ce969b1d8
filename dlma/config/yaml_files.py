"""The user's own YAML files, looked at before Hydra reads them, for what it would answer with a traceback."""

from __future__ import annotations

from pathlib import Path

import yaml

from dlma.errors import UserError

LARGEST = 100_000  # nodes of one file, aliases written out


class _Endless(Exception):
    """An alias inside of what it stands for, which begins at a line."""


def check(folder: Path, groups: list[str]) -> None:
    """Raise UserError for a file of one of the groups' folders that is not text, or that grows beyond all bounds."""
    for group in groups:
        for file in sorted((folder / group).rglob("*.y*ml")):
            _check_file(file)


def _check_file(file: Path) -> None:
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        size = 0 if node is None else _size(node, {}, ())
    except _Endless as found:
        raise UserError(f"{file}: line {found.args[0]}: an alias inside of what it stands for; take it out") from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8; save the file in that encoding") from None
    except RecursionError:
        raise UserError(f"{file}: nested too deeply to be read") from None
    except yaml.YAMLError:
        return  # Hydra names the line, if the file is asked for
    if size > LARGEST:
        raise UserError(f"{file}: its aliases (*name) stand for {size:,} values; write out what is needed")


def _size(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """The number of nodes with every alias written out; an alias is the same object as what it stands for."""
    if id(node) in above:
        raise _Endless(node.start_mark.line + 1)
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        inner = [part for pair in parts for part in pair] if isinstance(node, yaml.MappingNode) else parts
        known[id(node)] = 1 + sum(_size(part, known, (*above, id(node))) for part in inner)
    return known[id(node)]
