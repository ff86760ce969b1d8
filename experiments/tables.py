"""Every experiment's committed results: measured, collected, and shown in its README between the markers.

python experiments/tables.py run NAME [NAME ...]            # its commands, two cells at a time; then collect and render
python experiments/tables.py collect NAME FOLDER [FOLDER ...]    # finished sweeps -> results.csv, values.parquet
python experiments/tables.py add NAME FOLDER [FOLDER ...]        # the same, with the earlier seeds of values.parquet
python experiments/tables.py again NAME [NAME ...]          # the committed values read once more -> results.csv
python experiments/tables.py own NAME FOLDER [FOLDER ...]        # sweeps on validation prompts -> own_points.csv
python experiments/tables.py render [NAME ...]              # results.csv -> experiments/NAME/README.md

experiments/NAME/table.yaml says what is run and shown:
  before:    commands whose results later ones need, such as bases (optional)
  commands:  the sweeps and runs whose folders are collected
  after:     commands on these finished runs, such as verdicts between methods (optional)
  show:      metrics of the main table (not where the experiment has a table.py)
  sweep:     options of `sweep` (conf/config.yaml) that differ; without kl_levels no curve along KL is read
  reference: the experiment at whose curve of `dlma` each row is read too, at the row's own KL (optional)
  page:      where the tables stand, between the markers of `mark` (the experiment's README.md, results)
  by:        the experiment whose table.py collects and renders this one too (optional)
An experiment with a table.py of its own collects and renders by that: results(settings), or where other files of the
runs are read collect(*folders), gives the rows of results.csv, render(rows) their Markdown. Prose with numbers is
rendered too: texts.py. Beside results.csv the values of every seed and prompt are kept (values.parquet,
dlma/sweep/values.py), so that a test can be made anew without a run; what a file of before says without them:
pooled.py. One cell of each experiment measured again: verify.py.

`add` is for seeds or methods measured where the earlier run folders are not: results.csv and values.parquet are
written as if all folders had been there. Of a seed in both, the folders' run counts; a row that only one side has
stays. The folders are to be of all the experiment's sweeps, so that rows are called alike (dlma/sweep/joined_seeds.py).
Where rows cannot be matched, or a number would be lost with the folders, such as a judge's verdicts, nothing is written
(further_seeds.py). A table.py that reads other files of the runs cannot be added to.
"""

from __future__ import annotations

import difflib
import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import yaml

from dlma.config.schema import SweepOptions
from dlma.errors import UserError
from dlma.metrics.summary import Metric
from dlma.report import tables as sweep_tables
from dlma.report.result_text import FURTHER_SHARES
from dlma.runs import cells as run_folders
from dlma.sweep import all_results, reference_curve, values
from dlma.sweep.curves import BESIDE
from dlma.sweep.results import Result, over_seeds, read_csv, write_csv
from dlma.sweep.settings import Setting, settings

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))  # `experiments` and `benchmarks` are folders of the repository, not of the package
from experiments import further_seeds, own_points, pooled, texts  # noqa: E402

TWO_CELLS_AT_A_TIME = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "trainer.threads=1"]


@dataclass(frozen=True)
class Table:
    """table.yaml."""

    commands: list[str]
    show: list[str] | None = None
    before: list[str] | None = None
    after: list[str] | None = None
    sweep: dict | None = None
    reference: str | None = None
    page: str | None = None
    mark: str = "results"
    by: str | None = None

    @property
    def every(self) -> list[str]:
        """All commands in the order in which they are run."""
        return [*(self.before or []), *self.commands, *(self.after or [])]

    @property
    def options(self) -> SweepOptions:
        defaults = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())["sweep"]
        return SweepOptions(**defaults | {"kl_levels": []} | (self.sweep or {}))


def table_of(name: str) -> Table:
    """Raises UserError where there is no such experiment."""
    known(name, names())
    return Table(**yaml.safe_load((HERE / name / "table.yaml").read_text()))


def known(name: str, choices: Sequence[str]) -> None:
    if name not in choices:
        near = difflib.get_close_matches(name, choices, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(choices)}"
        raise UserError(f"{name}: no experiment with a table; {hint}")


def names() -> list[str]:
    """The experiments with a table.yaml."""
    return sorted(path.parent.name for path in HERE.glob("*/table.yaml"))


def own(name: str) -> ModuleType | None:
    """The experiment's own table.py, or that of the one it names."""
    path = HERE / (table_of(name).by or name) / "table.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location(f"{name}_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def collect(name: str, folders: Sequence[Path]) -> None:
    """Write results.csv, and beside it the values of every seed and prompt that the runs have of its metrics."""
    rows, of = settings(run_folders.collect(folders)), own(name)
    _write(name, rows, of.collect(*folders) if hasattr(of, "collect") else _results(name, rows))


def add(name: str, folders: Sequence[Path]) -> None:
    """The same for further seeds or methods, beside those of the committed values.parquet.

    Raises UserError, with nothing written, where rows cannot be matched or a committed number would be lost.
    """
    if hasattr(own(name), "collect"):
        raise UserError(f"{name}: its table.py reads files of every run; collect the folders of all seeds")
    rows = settings(run_folders.collect(folders))
    if not rows:
        raise UserError(f"{', '.join(map(str, folders))}: no finished run there")
    rows = further_seeds.with_earlier(HERE / name, rows, _called(name))
    found = _results(name, rows)
    further_seeds.refuse_losses(read_csv(HERE / name / "results.csv"), found)
    _write(name, rows, found)
    for seeds, named in further_seeds.by_seeds(rows).items():
        print(f"seeds {'+'.join(map(str, seeds))}: {len(named)} rows ({'; '.join(named)})")


def again(name: str) -> None:
    """Read the committed values once more, as after a change of how they are read.

    A number that they do not hold, such as a judge's verdicts, stands as it is; one that they hold and that is not read
    off them any more goes, with a line, and a new one comes last. Raises UserError where they do not do.
    """
    path = HERE / name / "values.parquet"
    if hasattr(own(name), "collect") or not path.exists():
        raise UserError(
            f"{name}: its numbers are not read from a values.parquet alone; collect the folders of all seeds"
        )
    committed = read_csv(HERE / name / "results.csv")
    axis = table_of(name).options.curve_axis or []
    rows = further_seeds.with_costs(values.read(path), committed, [], _called(name))
    rows = [_as_of_folders(row, axis) for row in rows]
    read = {(one.key, one.seeds): one for one in _results(name, rows)}
    held = {one.metric for one in read.values()}  # of another's own metric, a parquet does not say how it is read
    gone = [one for one in committed if _is_gone(one, read, held)]
    for one in gone:
        print(f"{name}: {one.label}, {one.metric}, {one.statistic}: not read off the values any more")
    kept = {(one.key, one.seeds): one for one in committed if one not in gone}
    (HERE / name / "results.csv").write_bytes(write_csv(list((kept | read).values())))


def _is_gone(one: Result, read: Mapping[tuple, Result], held: Set[str]) -> bool:
    """Whether a committed number, of a metric that is read off the values, is not among those read."""
    return one.metric in held and one.statistic not in ("share", "cost") and (one.key, one.seeds) not in read


def _as_of_folders(row: Setting, axis: Sequence[str]) -> Setting:
    """A committed row with what a folder would say: the axis' keys whole, and what the shares beside a curve are."""
    whole = {key.rpartition(".")[2]: key for key in axis}
    shares = {name: Metric(name, name, "share", "share", lambda _: None, "lower") for name in FURTHER_SHARES}
    runs = {seed: replace(cell, metrics={**shares, **cell.metrics}) for seed, cell in row.runs.items()}
    return replace(row, overrides={whole.get(key, key): value for key, value in row.overrides.items()}, runs=runs)


def choose(name: str, folders: Sequence[Path]) -> None:
    """Write own_points.csv: of each method the setting that the validation prompts choose (own_points.py)."""
    found = own_points.points([_called(name)(row) for row in settings(run_folders.collect(folders))])
    own_points.write(HERE / name, found)
    print("\n".join(map(own_points.line, found)))


def _called(name: str) -> Callable[[Setting], Setting]:
    """A row as results.csv calls it: by the name that the experiment's table.py gives it, if it does."""
    return getattr(own(name), "named", lambda row: row)


def _write(name: str, rows: Sequence[Setting], found: Sequence[Result]) -> None:
    (HERE / name / "results.csv").write_bytes(write_csv(found))
    values.write(HERE / name / "values.parquet", rows, {one.metric for one in found})


def _results(name: str, rows: Sequence[Setting]) -> list[Result]:
    of = own(name)
    return of.results(rows) if of else of_table(table_of(name), rows)


def of_table(chosen: Table, rows: Sequence[Setting]) -> list[Result]:
    """What table.yaml shows and compares, over all seeds: means, comparisons, curves, shares of wins, costs."""
    curves = reference_curve.read(HERE / chosen.reference / "results.csv", "dlma") if chosen.reference else {}
    rows = reference_curve.beside(rows, curves) if curves else rows
    found = over_seeds(all_results.results(rows, chosen.options))
    found = reference_curve.with_its_error(found, curves)
    kept = (*(chosen.show or []), *(BESIDE if chosen.options.kl_levels else ()))
    return [one for one in found if one.metric in kept or one.statistic in ("share", "cost")]


def render(name: str) -> str:
    """The Markdown of the committed results."""
    of, found, note = own(name), pooled.results(HERE / name), pooled.note(HERE / name)
    text = of.render(found) if of else sweep_tables.markdown(found, show=table_of(name).show).rstrip("\n")
    return "\n\n".join(filter(None, (text, note)))


def page_of(name: str) -> Path:
    """The page on which an experiment's tables and texts stand."""
    if name in texts.PAGES:
        return HERE.parent / texts.PAGES[name]
    table = HERE / name / "table.yaml"
    return HERE.parent / ((table_of(name).page if table.exists() else None) or f"experiments/{name}/README.md")


def shown(page: Path, mark: str) -> str:
    """What stands on a page between the markers."""
    return _around(page, mark)[1]


def write_page(name: str) -> None:
    """Put the tables of an experiment that was measured, and what is said of it, between their markers."""
    texts.rows.cache_clear()  # results may have been collected anew
    if name in names() and (HERE / name / "results.csv").exists():
        _put(page_of(name), table_of(name).mark, render(name))
    for template in texts.templates():
        if template.parent.name == name:
            _put(page_of(name), template.stem, texts.render(template, own))


def write_pages(chosen: Sequence[str] = ()) -> int:
    """The pages of these folders, or of all that have a table or a text; 2 where results do not bear what is said."""
    code, pages = 0, sorted({*names(), *(template.parent.name for template in texts.templates())})
    for name in chosen or pages:
        known(name, pages)
        try:
            write_page(name)
        except UserError as reason:
            print(reason, file=sys.stderr)
            code = 2
    return code


def _put(page: Path, mark: str, new: str) -> None:
    before, _, after = _around(page, mark)
    page.write_text(before + new + after)


def _around(page: Path, mark: str) -> tuple[str, str, str]:
    """The page up to the markers' content, the content, and what follows."""
    start, end = f"<!-- {mark}:start -->\n", f"\n<!-- {mark}:end -->"
    before, rest = page.read_text().split(start)
    inside, after = rest.split(end)
    return before + start, inside, end + after


def measure(name: str) -> None:
    """Run the experiment's commands (finished cells are kept) and collect their folders."""
    chosen = table_of(name)
    for command in chosen.every:
        words = shlex.split(command)
        apart = TWO_CELLS_AT_A_TIME if "-m" in words else []
        print(f"\n> {command}", flush=True)
        subprocess.run([sys.executable, *words[1:], *apart], check=True, cwd=HERE.parent)
    collect(name, [folder_of(command) for command in chosen.commands])


def folder_of(command: str) -> Path:
    """Where a command's `name=` puts its runs."""
    (name,) = [word.removeprefix("name=") for word in shlex.split(command) if word.startswith("name=")]
    return HERE.parent / "outputs" / name


def main(argv: Sequence[str]) -> int:
    try:
        return _main(argv)
    except UserError as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 2


def _main(argv: Sequence[str]) -> int:
    if {*argv} & {"-h", "--help"}:
        print(__doc__)
        return 0
    match argv:
        case ["run", *chosen]:
            for name in chosen or names():
                measure(name)
                code = write_pages()  # other pages speak of what was measured
            return code
        case ["collect", name, first, *more]:
            collect(name, [Path(first), *map(Path, more)])
        case ["add", name, first, *more]:
            add(name, [Path(first), *map(Path, more)])
        case ["again", first, *more]:
            for name in (first, *more):
                again(name)
        case ["own", name, first, *more]:
            choose(name, [Path(first), *map(Path, more)])
        case ["render", *chosen]:
            return write_pages(chosen)
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
