"""`mode=report runs='outputs/**'`, and the report at the end of every sweep: from the runs' own files, nothing else.

Writes report.html, report.md, report.tex and results.csv. results.csv alone gives the tables back byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from dlma import files
from dlma.config.build import resolved
from dlma.config.run_names import run_folder
from dlma.config.schema import SweepOptions
from dlma.errors import UserError
from dlma.report import markdown, sweep_page
from dlma.report import tables as sweep_tables
from dlma.runs import cells as run_folders
from dlma.runs.cells import Cell
from dlma.runs.folder import REPORT, REPORT_LATEX, REPORT_MARKDOWN, RESULTS
from dlma.sweep import all_results, published, reference_curve
from dlma.sweep import curves as sweep_curves
from dlma.sweep import settings as sweep_settings
from dlma.sweep.results import Result, write_csv
from dlma.sweep.settings import Setting

_NOWHERE = object()
NAMES = (REPORT, REPORT_MARKDOWN, REPORT_LATEX, RESULTS)


def options(cfg: DictConfig) -> SweepOptions:
    """Read off a whole config."""
    return SweepOptions(**resolved(cfg)["sweep"])


def run(cfg: DictConfig, /) -> dict:
    """mode=report: read the runs that `runs=` names and write their report into this run's folder."""
    if not cfg.runs:
        raise UserError("mode=report: say which runs: runs='outputs/**', a sweep's folder, or several with commas")
    cells = run_folders.collect(_patterns(cfg.runs))
    if not cells:
        raise UserError(f"runs={cfg.runs}: no run there, only what other modes wrote")
    folder = run_folder()
    write(folder, cells, options(cfg), title=f"Report of {cfg.runs}")
    return {"cells": len(cells), "finished": sum(bool(cell.arms) for cell in cells)}


def _patterns(runs: str) -> list[str]:
    """One pattern, or several with commas; a comma may be part of the name of a folder, as in `dlma,seed=0`."""
    return [runs] if run_folders.paths(runs) else [pattern.strip() for pattern in runs.split(",")]


def write(folder: Path, cells: Sequence[Cell], chosen: SweepOptions, *, title: str, missing: int = 0) -> None:
    """The four files of a report, and where they are."""
    curves = reference_curve.read(Path(chosen.reference), chosen.reference_method) if chosen.reference else {}
    rows = sweep_settings.settings(cells)
    rows = reference_curve.beside(rows, curves) if curves else rows
    found = reference_curve.with_its_error(_results(rows, chosen), curves)
    beside = published.beside(rows, published.read(chosen.known))
    page = sweep_page.SweepPage(title, folder.resolve(), cells, rows, found, chosen, beside, missing)
    reasons = [f"{cell.name}: {cell.status}, {cell.reason}" for cell in cells if cell.status != "done"]
    failed = [f"- {markdown.paragraph(reason)}" for reason in reasons]
    first = f"# {markdown.plain(title)}"
    head = [first, "", sweep_page.headline(cells, missing), "", *failed, *([""] if failed else [])]
    text = "\n".join(head) + "\n" + sweep_tables.markdown(found, beside, chosen.margin)
    contents = {
        REPORT: sweep_page.render(page),
        REPORT_MARKDOWN: text.encode(),
        REPORT_LATEX: sweep_tables.latex(found, beside, chosen.margin).encode(),
        RESULTS: write_csv(found),
    }
    with files.guarded(folder, "hydra.run.dir"):
        for name in NAMES:
            files.write_bytes(folder / name, contents[name])
    print(f"report: {folder / NAMES[0]} (and {', '.join(NAMES[1:])})")


def _results(rows: Sequence[Setting], chosen: SweepOptions) -> list[Result]:
    """The rows of results.csv, once what was asked of them is known to be there."""
    _check_metrics("tested", chosen.tested or [], rows)
    _check_metric(chosen.metric, rows)
    _check_axis(chosen.curve_axis, rows)
    _tell_where_nothing_is_against(chosen, rows)
    return all_results.results(rows, chosen)


def _check_metrics(key: str, wanted: Sequence[str], rows: Sequence[Setting]) -> None:
    names = sweep_settings.metrics_of(rows)
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise UserError(f"sweep.{key}={unknown[0]}: no such metric; there are {', '.join(names)}")


def _check_metric(metric: str | None, rows: Sequence[Setting]) -> None:
    _check_metrics("metric", [metric] if metric else [], rows)
    kind = sweep_settings.metrics_of(rows)[metric].kind if metric else "mean"
    if kind not in ("mean", "share"):
        raise UserError(f"sweep.metric={metric}: curves are of means and shares, not of a {kind}")


def _check_axis(keys: Sequence[str] | None, rows: Sequence[Setting]) -> None:
    unknown = [key for key in keys or [] if not any(key in (*row.overrides, *row.config) for row in rows)]
    if rows and unknown:
        raise UserError(_no_axis(unknown[0]))


def _tell_where_nothing_is_against(chosen: SweepOptions, rows: Sequence[Setting]) -> None:
    """A line where no curve has the name that others are to be held against: a part of a sweep may lack that method."""
    drawn, wanted = sweep_curves.along_kl(rows, chosen.curve_axis), chosen.curves_against
    if wanted and drawn and not any(curve.is_named(wanted) for curve in drawn):
        there = ", ".join(dict.fromkeys(curve.method for curve in drawn))
        print(f"warning: sweep.curves_against={wanted}: no curve of that name, so none is compared; there are {there}")


def _no_axis(key: str) -> str:
    return f"sweep.curve_axis={key}: no key of these runs; write it whole, such as recipe.beta"


def check(cfg: DictConfig, cells: Callable[[], Iterable[DictConfig]]) -> None:
    """What a sweep's report will read is there; before the sweep. Raises UserError.

    cells: composes every cell, which is done only where the report reads a key of theirs
    """
    chosen = options(cfg)
    unknown = set(chosen.curve_axis or [])
    for cell in cells() if unknown else []:
        unknown = {key for key in unknown if OmegaConf.select(cell, key, default=_NOWHERE) is _NOWHERE}
        if not unknown:
            break
    if unknown:
        raise UserError(_no_axis(min(unknown)))
    published.read(chosen.known)
    if chosen.reference:
        reference_curve.read(Path(chosen.reference), chosen.reference_method)


def of_sweep(folder: Path, cells: Sequence[Path], cfg: DictConfig, *, missing: int) -> None:
    """The report of a sweep's cells, in its folder, whatever became of them; nothing where no cell is a run."""
    found = [run_folders.read_cell(cell) for cell in cells]
    if any(cell.arms or cell.status == "failed" for cell in found):
        whole = not missing and all(cell.arms for cell in found)
        chosen = options(cfg) if whole else _of_what_ended(options(cfg), found)
        write(folder, found, chosen, title=f"Sweep {folder.name}", missing=missing)


def _of_what_ended(chosen: SweepOptions, cells: Sequence[Cell]) -> SweepOptions:
    """The options of a sweep of which runs failed; without a baseline, and with a line, where it is one of those."""
    rows = [row for row in sweep_settings.settings(cells) if row.final]
    try:
        for row in rows:
            sweep_settings.baseline_of(row, rows, chosen.baseline)
    except UserError as reason:
        print(f"warning: {reason}; the report holds all settings against the base")
        return replace(chosen, baseline=None)
    return chosen
