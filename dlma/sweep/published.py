"""Published numbers beside ours: read from a YAML, each with a mark of where it comes from, shown only where the
set-up is comparable.

An entry of `published.yaml` names a method, a metric, its value, its mark and source, and under `setup` the config
keys (dotted) that a run must have, as shell patterns. All must match: a run on the lab matches none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

import yaml

from dlma.errors import UserError
from dlma.sweep.settings import Setting


@dataclass(frozen=True)
class KnownValue:
    """One published number; `mark` says how far it may be trusted ([V] read, [2] second-hand, [I] inferred)."""

    method: str
    metric: str
    value: str
    mark: str
    source: str
    setup: dict[str, str]

    def suits(self, row: Setting) -> bool:
        """Whether a row's method and config are those of the published number."""
        if row.method != self.method or not self.setup:
            return False
        return all(fnmatchcase(str(row.config.get(key, "")), pattern) for key, pattern in self.setup.items())


def read(path: str | Path | None = None) -> list[KnownValue]:
    """The entries of a YAML file; None: the package's own. Raises UserError where an entry is not whole."""
    source = resources.files("dlma.sweep").joinpath("published.yaml") if path is None else Path(path)
    try:
        entries = yaml.safe_load(source.read_text(encoding="utf-8")) or []
        return [KnownValue(**{**entry, "value": str(entry["value"])}) for entry in entries]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as reason:
        line = (str(reason).splitlines() or [type(reason).__name__])[0]
        raise UserError(f"sweep.known={path}: not a list of known values ({line}); see published.yaml") from None


def beside(rows: Sequence[Setting], values: Sequence[KnownValue]) -> Mapping[tuple[str, str, str], str]:
    """(label, base, metric) of our rows to the published text, where the set-up is comparable."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        for known in values:
            if known.suits(row):
                text = f"{known.metric} {known.value} {known.mark} {known.source}"
                found.setdefault((row.label, row.base, known.metric), []).append(text)
    return {key: "; ".join(texts) for key, texts in found.items()}
