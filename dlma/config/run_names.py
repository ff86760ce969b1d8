"""Names of run folders: readable, the same for the same command, and safe on any file system.

A single run is `dlma,seed=1` (the method, then the overrides by key) unless `name=` says otherwise; a sweep is a
folder such as `dlma,seed=0+1+2` with one folder per cell, named by what varies.
"""

from __future__ import annotations

import hashlib
import operator
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from dlma import redaction
from dlma.config.check import Problem
from dlma.redaction import is_secret

LONGEST = 80
LONGEST_ON_DISK = 255  # bytes of one name, on the file systems in use
APART = ("method", "name")  # the method stands first; a name is the name
APART_TREE = "sweep."  # how a sweep is gone about and reported: the same sweep


def register() -> None:
    """Make the names, and `dlma.minus` (a number's negative), known to Hydra's config; again is harmless."""
    for name, resolver in (("run_name", _run), ("sweep_name", _sweep), ("cell_name", _cell)):
        OmegaConf.register_new_resolver(f"dlma.{name}", resolver, replace=True)
    OmegaConf.register_new_resolver("dlma.minus", operator.neg, replace=True)


def _run(*, _root_: DictConfig) -> str:
    if _root_.name is not None:
        return safe(redaction.text(_root_.name))
    return join(_method(_root_), _overrides(_root_, ()))


def _sweep(*, _root_: DictConfig) -> str:
    return _run(_root_=_root_)


def _cell(*, _root_: DictConfig) -> str:
    fixed = _root_.hydra.job.config.override_dirname.exclude_keys
    return join(_method(_root_), _overrides(_root_, fixed))


def _method(root: DictConfig) -> str:
    written = dict(split(line) for line in root.hydra.overrides.task)
    return written.get("method", root.hydra.runtime.choices.method)


def _overrides(root: DictConfig, leave_out: Iterable[str]) -> list[tuple[str, str]]:
    pairs = dict(split(line) for line in root.hydra.overrides.task)
    dropped = {*APART, *leave_out}
    if pairs.get("mode") == "run":
        dropped.add("mode")
    return sorted(
        (k, v) for k, v in pairs.items() if k not in dropped and not k.startswith(APART_TREE) and not _hidden(k, v)
    )


def _hidden(key: str, value: str) -> bool:
    """Whether it is a secret or holds one; a switch such as `per_token=true` is none."""
    by_name = is_secret(key) and value.lower() not in ("true", "false")
    return by_name or redaction.text(value) != value


def problems(cfg: DictConfig) -> list[Problem]:
    """What is wrong with `name=`: it is the name of one folder below outputs."""
    name = OmegaConf.select(cfg, "name", throw_on_resolution_failure=False)
    wrong = unfit(name) if isinstance(name, str) else None
    return [] if wrong is None else [Problem("name", wrong)]


def unfit(name: str) -> str | None:
    """Why a name cannot be that of a folder below outputs; None if it can."""
    size = len(name.encode(errors="surrogateescape"))
    shown, parts = repr(name if size <= LONGEST else name[:LONGEST] + "..."), re.split(r"[/\\]", name)
    if not name.strip(" ./\\"):
        return f"{shown} names no folder; leave it out, or give a word"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        return f"{shown} holds control characters; write it without"
    if parts[0] == "" or ".." in parts or re.fullmatch(r"[A-Za-z]:", parts[0]):
        return f"{shown} leads out of the outputs folder; give a plain name, or the whole folder as hydra.run.dir=..."
    if size > LONGEST_ON_DISK:
        return f"{shown} has {size} bytes, and a folder's name at most {LONGEST_ON_DISK}; give a shorter one"
    return None


def split(line: str) -> tuple[str, str]:
    """Key and value of an override as written; the prefixes `+`, `++` and `~` are no part of the key."""
    key, _, value = line.partition("=")
    return key.lstrip("+~"), value.strip("'\"")


def join(method: str, overrides: list[tuple[str, str]]) -> str:
    """`dlma,seed=1`; several values of a sweep are joined by `+`, a path shows its last part."""
    exact = [method, *(f"{key}={value}" for key, value in overrides)]
    shown = [method.replace(",", "+"), *(f"{key}={_short(value)}" for key, value in overrides)]
    return safe(",".join(shown), ",".join(exact))


def _short(value: str) -> str:
    _, slash, last = value.rstrip("/").rpartition("/")
    return value.replace(",", "+") if "," in value else slash + last


def safe(shown: str, exact: str | None = None) -> str:
    """A folder name that shows `shown`; where that had to be changed, a hash of `exact` tells it apart."""
    clean = re.sub(r"[^\w.=,+-]+", "_", shown, flags=re.ASCII).replace("=_", "=").lstrip(".") or "run"
    if clean == shown and len(clean) <= LONGEST:
        return clean
    digest = hashlib.sha256((exact or shown).encode()).hexdigest()[:8]
    return f"{clean[: LONGEST - 9]}-{digest}"


def run_folder() -> Path:
    """The folder of the present run; the entry (app.py) sets it before the mode is called."""
    from hydra.core.hydra_config import HydraConfig

    return Path(HydraConfig.get().runtime.output_dir)
