"""mode=store: lists what the store holds, and removes what is asked for."""

from __future__ import annotations

from typing import Literal

from omegaconf import DictConfig
from rich.table import Table

from dlma import files
from dlma.errors import UserError
from dlma.ranges import NotNegative
from dlma.screen import Console
from dlma.store import owned
from dlma.store.retention import DAY, Holding, holdings, remove
from dlma.store.store import VERSION, Store

_CLEANS = {
    "none": set(),
    "partial": {"partial"},
    "damaged": {"damaged"},
    "all": {"done", "pruned", "partial", "damaged"},
}


def show(
    cfg: DictConfig,
    /,
    *,
    clean: Literal["none", "partial", "damaged", "all"] = "none",
    older_than_days: NotNegative | None = None,
    yes: bool = False,
) -> None:
    """Prints the stages in the store, or those that `clean` would remove, and with `yes` removes these.

    With an age it speaks of older ones only. Only a store is listed (owned.py); raises UserError for any other
    folder that is not empty.
    """
    if clean not in _CLEANS:
        raise UserError(f"mode.clean={clean}: choose one of {', '.join(_CLEANS)}")
    if yes and clean == "none":
        raise UserError("mode.yes=true: says nothing without mode.clean=partial, damaged or all")
    store = Store(cfg.store.root)
    owned.look(store.root, VERSION)
    limit = 0.0 if older_than_days is None else older_than_days * DAY
    found = [holding for holding in holdings(store.root) if holding.age >= limit]
    chosen = [holding for holding in found if holding.state in _CLEANS[clean]]
    console, shown = Console(), found if clean == "none" else chosen
    if shown:
        console.print(_table(shown, "stages in the store" if clean == "none" else "to be removed"))
    line = f"{store.root}: {len(found)} stages, {_total(found)}"
    if chosen:
        line += _removed(store, chosen) if yes else f"; mode.yes=true removes {len(chosen)}, {_total(chosen)}"
    console.print(line, soft_wrap=True, highlight=False)


def _table(found: list[Holding], title: str) -> Table:
    table = Table(title=title)
    for column in ("stage", "key", "size", "rows", "age", "state"):
        table.add_column(column, justify="right" if column in ("size", "rows", "age") else "left", no_wrap=True)
    for holding in found:
        rows = "" if holding.rows is None else f"{holding.rows:,}"
        name, key = holding.folder.parent.name, holding.folder.name
        table.add_row(name, key, size_text(holding.size), rows, age_text(holding.age), holding.state)
    return table


def size_text(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def age_text(age: float) -> str:
    for unit, seconds in (("d", DAY), ("h", 3600.0), ("min", 60.0)):
        if age >= seconds:
            return f"{age / seconds:.0f} {unit}"
    return "now"


def _removed(store: Store, chosen: list[Holding]) -> str:
    """Remove the chosen stages; what the summary says of it."""
    with files.guarded(store.root, "store.root"):
        removed = [holding for holding in chosen if remove(store, holding)]
    left = len(chosen) - len(removed)
    return f"; removed {len(removed)}, {_total(removed)}" + (f"; left {left} in use by another process" if left else "")


def _total(found: list[Holding]) -> str:
    return size_text(sum(holding.size for holding in found))
