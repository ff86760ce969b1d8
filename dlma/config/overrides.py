"""Overrides of a command line or a sweep: parsed one by one, and told apart by what they set."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

from hydra.core.default_element import GroupDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, ValueType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult

from dlma import redaction
from dlma.config.hydra_internals import Loader

PRIMARY = "config"
PLUGINS = {  # options of Hydra's groups that come with an extra
    **dict.fromkeys(
        ("hydra/launcher=joblib", "hydra/launcher=submitit_local", "hydra/launcher=submitit_slurm"), "sweep"
    ),
    "hydra/sweeper=optuna": "optuna",
}


@dataclass
class Reading:
    """Every mistake found so far; a dict keeps the order, and each line once.

    unread: the keys whose values could not be parsed
    commands: what the command line itself says under foreign.COMMAND
    """

    loader: Loader
    mistakes: dict[str, None] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    commands: set[str] = field(default_factory=set)

    def add(self, line: str) -> None:
        self.mistakes[line] = None

    @cached_property
    def groups(self) -> set[str]:
        """The groups of the defaults list."""
        defaults = cast(ConfigResult, self.loader.files.load_config(PRIMARY)).defaults_list or []
        return {default.group for default in defaults if isinstance(default, GroupDefault) and default.group}


def by_slot(overrides: Iterable[Override]) -> dict[str, Override]:
    """Overrides by what they set, a group's package included; of two that set the same, the later one."""
    return {slot_of(override): override for override in overrides}


def slot_of(override: Override) -> str:
    """What an override sets: a key, or a group and its package."""
    return override.get_key_element().lstrip("+~")


def read(line: str, reading: Reading) -> Override | None:
    """Parse one override; what does not parse, or names no option of its group, is a mistake and left out."""
    try:
        if line.lstrip("+~").startswith("="):  # to Hydra, the options of a group without a name
            raise HydraException("no key")
        override = OverridesParser.create(reading.loader).parse_overrides([line])[0]
    except HydraException:
        reading.unread.add(line.partition("=")[0].lstrip("+~"))
        reading.add(f"{redaction.redact(line)}: not an override; {_rule(line)}")
        return None
    except ValueError:  # Python's own: no integer of more than 4300 digits
        reading.unread.add(line.partition("=")[0].lstrip("+~"))
        reading.add(f"{line[:40]}...: a number of thousands of digits; give a smaller one")
        return None
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP and not is_group(override):
        reading.add(f"{redaction.redact(line)}: glob is for the options of a group")
        return None
    return None if is_group(override) and not _known_options(override, reading) else override


def _rule(line: str) -> str:
    """How an override is written, for one that does not parse."""
    key, equals, value = line.partition("=")
    if not equals:
        return f"write key=value, quoted where the value has spaces or commas; did you mean {line}=...?"
    if "=" in value and not {"'", '"'} & set(value):
        return redaction.text(f"a value with = in it is quoted: \"{key}='{value}'\"")
    return "write key=value, quoted where the value has spaces or commas"


def told(override: Override) -> str:
    """An override as it was written, for a message."""
    return str(redaction.redact(override.input_line))


def is_group(override: Override) -> bool:
    """Whether it chooses an option of a group, rather than giving a value."""
    return cast(Loader, override.config_loader).repository.group_exists(override.key_or_group)


def _known_options(override: Override, reading: Reading) -> bool:
    group = override.key_or_group
    available = reading.loader.get_group_options(group)
    wrong = [v for v in _choices(override) if v != "" and not _exists(group, v, reading)]
    for value in wrong:
        if value in ("null", "None"):
            reading.add(f"{told(override)}: leave {group} out, and it is what it is by default")
            continue
        near = difflib.get_close_matches(value, available, n=1)
        hint = f"; did you mean {group}={near[0]}?" if near else ""
        if (extra := PLUGINS.get(f"{group}={value}")) is not None:
            hint = f": pip install 'dlma[{extra}]'"
        reading.add(f"{group}={value}: no such option{hint} (there are {', '.join(available)})")
    return not wrong


def _exists(group: str, option: str, reading: Reading) -> bool:
    """Whether a group has an option, which may lie in a folder of it: `lab_pairs/kind_cruel`."""
    folder, _, name = option.rpartition("/")
    return name in reading.loader.get_group_options(f"{group}/{folder}" if folder else group)


def _choices(override: Override) -> list[str]:
    """The values of an override as text: several for a sweep or a list, none for a deletion."""
    if override.is_delete():
        return []
    if override.is_sweep_override():
        return [choice for single in singles_of(override) for choice in _choices(single)]
    value = override.value()
    return [str(item) for item in value] if isinstance(value, list) else [override.get_value_element_as_str()]


def singles_of(override: Override) -> list[Override]:
    """One override for each value of a sweep; for the bounds of one that is not a list of values."""
    parser = OverridesParser.create(override.config_loader)
    return parser.parse_overrides([f"{override.get_key_element()}={value}" for value in _values(override)])


def _values(override: Override) -> list[str]:
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    interval = cast(IntervalSweep, override.value())  # the one sweep that is not a list of values
    return [str(interval.start), str(interval.end)]


def normal(override: Override, reading: Reading) -> str:
    """The override as Hydra gets it: prefixes no longer matter, except where they mean something.

    They do for a deletion, for Hydra's own keys, for a group that is put into a package, and for one that is not in
    the defaults list.
    """
    line = override.input_line or ""
    if override.is_delete() or override.is_hydra_override() or override.package is not None:
        return line
    if not is_group(override):
        return "++" + line.lstrip("+")
    return line.lstrip("+") if override.key_or_group in reading.groups else line.replace("++", "+", 1)
