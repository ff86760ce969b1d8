"""The margin sweep on a reduced lab run: some cells over one store, or as many single runs, each with its own."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.clock import Clock

SMALL = {"data.train": 192, "data.validation": 8, "data.test": 48}
WARM = {"data.train": 8, "data.validation": 8, "data.test": 8, "recipe.epochs": 1, "recipe.max_new_tokens": 4}


def weights(cells: int) -> list[str]:
    """The margin weights of a sweep."""
    return [f"{cell / 10:.1f}" for cell in range(cells)]


def sweep(folder: Path, clock: Clock, cells: int, sizes: dict[str, int] = SMALL) -> dict:
    """One sweep: the pairs are sampled and scored once."""
    with _warm(folder), timed_stages() as stages, clock.span("work"):
        multirun = ["-m"] if cells > 1 else []
        _main([*multirun, *_settings(sizes), "store.root=store", f"recipe.margin_weight={','.join(weights(cells))}"])
    return {"stages": stages}


def singles(folder: Path, clock: Clock, cells: int, sizes: dict[str, int] = SMALL) -> dict:
    """As many runs, of which each starts from nothing."""
    with _warm(folder), timed_stages() as stages, clock.span("work"):
        for number, weight in enumerate(weights(cells)):
            _main([*_settings(sizes), f"store.root=store-{number}", f"recipe.margin_weight={weight}"])
    return {"stages": stages}


def bound(shared: float, cell: float, cells: int) -> float:
    """The least share of the single runs' time that a sweep can take: (S + nT) / (n(S + T))."""
    return (shared + cells * cell) / (cells * (shared + cell))


def parts(stages: list[dict], cells: int) -> tuple[float, float]:
    """S and T, seconds: stages that a sweep ran once, and those of one cell, which may be several of a name.

    Raises ValueError on a stage of another count.
    """
    counts: dict[str, list[float]] = {}
    for stage in stages:
        counts.setdefault(stage["stage"], []).append(stage["seconds"])
    odd = {name: len(times) for name, times in counts.items() if len(times) > 1 and len(times) % cells}
    if odd:
        raise ValueError(f"stages that ran neither once nor once a cell: {odd}")
    shared = sum(times[0] for times in counts.values() if len(times) == 1)
    return shared, sum(sum(times) for times in counts.values() if len(times) > 1) / cells


@contextlib.contextmanager
def timed_stages() -> Iterator[list[dict]]:
    """The stages that were computed in the block, with their seconds; those that were found are left out.

    The manifests' own times are whole seconds, which is too coarse for a small run.
    """
    from dlma.store.store import Store

    found: list[dict] = []
    make = Store.make

    def timed(store, stage, *args, **named):
        started = time.perf_counter()
        made = make(store, stage, *args, **named)
        if store.fate(made) == "run" and (str(made.folder) not in {f["folder"] for f in found}):
            row = {"stage": _name(made), "folder": str(made.folder), "seconds": time.perf_counter() - started}
            found.append(row)
        return made

    Store.make = timed
    try:
        yield found
    finally:
        Store.make = make


def _name(stage) -> str:
    """The stage, told apart where a run has several of its kind: the split of contexts, the arm of answers."""
    return ":".join([stage.name, *(stage.values[key] for key in ("split", "arm") if key in stage.values)])


@contextlib.contextmanager
def _warm(folder: Path) -> Iterator[None]:
    """In the folder, after a run that is not timed: imports and first calls belong to no stage."""
    before = Path.cwd()
    folder.mkdir(parents=True)
    os.chdir(folder)
    try:
        _main([*_settings(WARM), "store.root=warm", "name=warm"])
        yield
    finally:
        os.chdir(before)


def _main(argv: list[str]) -> None:
    from dlma.app import main

    code = main(argv)
    if code:
        raise RuntimeError(f"the run ended with exit code {code}: {' '.join(argv)}")


def _settings(sizes: dict[str, int]) -> list[str]:
    return ["method=dlma", "logger=csv", *(f"{key}={value}" for key, value in sizes.items())]
