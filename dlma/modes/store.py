"""mode=store: what the store holds, and the removal of what is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from dlma import files
from dlma.errors import UserError
from dlma.store.retention import DAY, Holding, holdings, remove
from dlma.store.store import Store

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
    older_than_days: float | None = None,
) -> None:
    """Prints the stages in the store and removes those asked for; with an age, speaks of older ones only."""
    if clean not in _CLEANS:
        raise UserError(f"mode.clean={clean}: choose one of {', '.join(_CLEANS)}")
    store = Store(cfg.store.root)
    limit = 0.0 if older_than_days is None else older_than_days * DAY
    found = [holding for holding in holdings(store.root) if holding.age >= limit]
    console = Console()
    if found:
        console.print(_table(found))
    chosen = [holding for holding in found if holding.state in _CLEANS[clean]]
    with files.guarded(store.root, "store.root"):
        removed = [holding for holding in chosen if remove(store, holding)]
    console.print(_summary(store.root, found, chosen, removed), soft_wrap=True, highlight=False)


def _table(found: list[Holding]) -> Table:
    table = Table(title="stages in the store")
    for column in ("stage", "key", "size", "rows", "age", "state"):
        table.add_column(column, justify="right" if column in ("size", "rows", "age") else "left", no_wrap=True)
    for holding in found:
        rows = "" if holding.rows is None else f"{holding.rows:,}"
        name, key = holding.folder.parent.name, holding.folder.name
        table.add_row(name, key, size_text(holding.size), rows, age_text(holding.age), holding.state)
    return table


def _summary(root: Path, found: list[Holding], chosen: list[Holding], removed: list[Holding]) -> str:
    total = size_text(sum(holding.size for holding in found))
    line = f"{root}: {len(found)} stages, {total}"
    if chosen:
        line += f"; removed {len(removed)}, {size_text(sum(holding.size for holding in removed))}"
    if len(removed) < len(chosen):
        line += f"; left {len(chosen) - len(removed)} in use by another process"
    return line


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
