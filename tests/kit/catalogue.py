"""The catalogue of bad input: every message with what to do about it, and inputs that must lead to just that line.

docs/troubleshooting.md is made of it by `page`. In a message, <word> stands for what varies.
"""

import copy
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from source_tree import ROOT

from dlma.config import check, compose, run_names
from dlma.config.hydra_internals import Loader
from dlma.config.overrides import Reading, read
from dlma.errors import BadRow, UserError

Case = Callable[[Path], object]
CORPUS = ("data=jsonl", "data.path=p", "model=hf", "model.path=m")
COMMAND = "python tests/test_troubleshooting.py"


@dataclass(frozen=True)
class Entry:
    """A message, what to do, and the inputs; each is called with an empty folder and raises the message."""

    message: str
    advice: str
    cases: tuple[Case, ...]

    @property
    def pattern(self) -> str:
        return re.sub(r"<\w+>", ".+", re.escape(self.message))


@functools.cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    return compose.plan(compose.search_path(ROOT / "conf", None), list(overrides), False).cfg


def config(message: str, advice: str, *changes: tuple[str, object], under: tuple[str, ...] = ()) -> Entry:
    """A message of the config's check, for single values."""
    return Entry(message, advice, tuple(functools.partial(_changed, dict([change]), under) for change in changes))


def configs(message: str, advice: str, *changes: dict[str, object], under: tuple[str, ...] = ()) -> Entry:
    """The same for several values at once."""
    return Entry(message, advice, tuple(functools.partial(_changed, change, under) for change in changes))


def _changed(changes: dict[str, object], under: tuple[str, ...], folder: Path) -> None:
    cfg = copy.deepcopy(composed(under))
    for key, value in changes.items():
        OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    check.check(cfg)
    if found := run_names.problems(cfg):
        raise UserError(str(found[0]))


@functools.cache
def _loader() -> Loader:
    loader = Loader(compose.search_path(ROOT / "conf", None))
    loader.ensure_main_config_source_available()
    return loader


def override(message: str, advice: str, *lines: str) -> Entry:
    """A message about the writing of one override."""
    return Entry(message, advice, tuple(functools.partial(_read, line) for line in lines))


def _read(line: str, folder: Path) -> None:
    reading = Reading(_loader())
    read(line, reading)
    raise UserError("; ".join(reading.mistakes))


def command(message: str, advice: str, *lines: list[str]) -> Entry:
    """A message about a whole command line; `-m` may stand in it."""
    return Entry(message, advice, tuple(functools.partial(_planned, line) for line in lines))


def _planned(line: list[str], folder: Path) -> None:
    compose.plan(compose.search_path(ROOT / "conf", None), [part for part in line if part != "-m"], "-m" in line)


def entry(message: str, advice: str, *cases: Case) -> Entry:
    return Entry(message, advice, cases)


def said(case: Case, folder: Path) -> str:
    """The line that an input leads to."""
    try:
        case(folder)
    except (UserError, BadRow) as reason:
        return str(reason)
    return "nothing was refused"


def page(rooms: dict[str, list[Entry]]) -> str:
    """docs/troubleshooting.md."""
    parts = [
        "# Troubleshooting\n\nWhat dlma says of bad input, and what to do. A line says the key or the place first; the "
        "exit code is 2. `<word>` stands for\nwhat varies. Reasons for dropping a row are here too. "
        f"This page is made by\n`{COMMAND}` of the inputs that the tests refuse.\n"
    ]
    for room, entries in rooms.items():
        rows = "\n".join(f"| `{_cell(one.message)}` | {one.advice} |" for one in entries)
        parts.append(f"## {room}\n\n| line | what to do |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")
