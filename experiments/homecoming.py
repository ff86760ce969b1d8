"""Results that come home: what a run or sweep on anybody's hardware measured, as a folder for a pull request.

python experiments/homecoming.py make HARDWARE FOLDER [FOLDER ...]   # finished runs or sweeps -> results/HARDWARE/DATE/
python experiments/homecoming.py check [FOLDER ...]                  # these folders, or all that are committed

experiments/results/HARDWARE/DATE/ holds three files and no others:
  manifest.json    SCHEMA: hardware, date, libraries, and of each run its method, seed, machine, stages and seconds
  results.csv      means, differences and costs, in the columns of every results.csv (dlma/sweep/results.py)
  values.parquet   the value of each prompt and seed; a prompt is a hash of its id (dlma/sweep/values.py)
Numbers and names only. A text is refused wherever it stands: of a prompt or an answer, a place on a disk, a credential;
and so is a mean that the values beside it do not come to. docs/results.md shows the folders (experiments/tables.py).
"""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from dlma import files, redaction
from dlma.config.schema import SweepOptions
from dlma.errors import UserError
from dlma.runs import cells as run_folders
from dlma.runs.folder import RunFolder
from dlma.sweep import all_results, values
from dlma.sweep.results import COLUMNS, Result, over_seeds, read_csv, write_csv
from dlma.sweep.settings import Setting, settings

HERE = Path(__file__).resolve().parent
HOME = HERE / "results"
MANIFEST, RESULTS, VALUES = "manifest.json", "results.csv", "values.parquet"
LARGEST = 4_000_000  # bytes of a folder
SHOWN = ("harmful", "sentiment", "self_reward")  # of these the first that a folder has is shown
KEPT = ("mean", "difference", "cost")
_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,40}")
_WORDS = 8  # the name of a processor has as many
_PLAIN = re.compile(r"[\w.+\-,;:=%()\[\]@ *']{0,100}")
_STRING = pa.dictionary(pa.int32(), pa.string())
_COLUMNS = {**dict.fromkeys(values.NAMES, _STRING), "seed": pa.int64(), "prompt": pa.uint64()}
_COLUMNS |= {"value": pa.float64(), "weight": pa.float64()}
_RUN = {"base": str, "method": str, "seed": int, "machine": dict, "stages": dict}
_STAGE = {"name": str, "key": str, "version": int, "seconds": float}
SCHEMA = {"schema": int, "hardware": str, "date": str, "libraries": dict, "runs": list}


def make(hardware: str, folders: Sequence[Path], home: Path | None = None) -> Path:
    """A folder of what finished runs measured; raises UserError, with nothing written, where it would not be taken."""
    cells = [cell for cell in run_folders.collect(folders) if cell.status == "done"]
    if not cells:
        raise UserError(f"{', '.join(map(str, folders))}: no finished run there")
    manifest = _manifest(hardware, [RunFolder(cell.folder) for cell in cells])
    place = (home or HOME) / hardware / manifest["date"]
    if place.exists():
        raise UserError(f"{place}: is there already; name the hardware otherwise, or remove it")
    found = _found(settings(cells))
    with TemporaryDirectory() as scratch:
        draft = Path(scratch)
        files.write_json(draft / MANIFEST, manifest)
        values.write(draft / VALUES, settings(cells), {one.metric for one in found})
        again = {one.key for one in _found(values.read(draft / VALUES))}  # of no whole table of texts, as self-BLEU is
        files.write_bytes(draft / RESULTS, write_csv([o for o in found if o.key in again or o.statistic == "cost"]))
        if wrong := problems(draft, manifest["date"], hardware):
            raise UserError(f"{place}: {'; '.join(wrong[:3])}")
        place.mkdir(parents=True)
        for name in (MANIFEST, RESULTS, VALUES):
            shutil.copyfile(draft / name, place / name)
    return place


def _found(rows: Sequence[Setting]) -> list[Result]:
    """Means, differences and costs of these rows, over all seeds."""
    return [one for one in over_seeds(all_results.results(rows, _options())) if one.statistic in KEPT]


def _options() -> SweepOptions:
    defaults = yaml.safe_load((HERE.parent / "conf" / "config.yaml").read_text())["sweep"]
    return SweepOptions(**defaults | {"kl_levels": []})


def _manifest(hardware: str, runs: Sequence[RunFolder]) -> dict:
    stages = [run.manifest() for run in runs]
    last = max((stage for one in stages for stage in one.values()), key=lambda stage: stage["ended"])
    return {
        "schema": 1,
        "hardware": hardware,
        "date": last["ended"][:10],
        "libraries": last["libraries"],
        "runs": [_run(run, one) for run, one in zip(runs, stages, strict=True)],
    }


def _run(run: RunFolder, stages: dict) -> dict:
    about = run.about()
    machines = [stage["machine"] for stage in stages.values() if stage.get("machine")]
    return {
        "base": about["base"],
        "method": about["method"],
        "seed": int(about["seed"]),
        "machine": machines[-1] if machines else {},
        "stages": {name: _stage(stage) for name, stage in stages.items()},
    }


def _stage(stage: dict) -> dict:
    started, ended = (datetime.fromisoformat(stage[when]) for when in ("started", "ended"))
    kept = {name: stage[name] for name in ("name", "key", "version")}
    return {**kept, "seconds": (ended - started).total_seconds()}


def committed(home: Path | None = None) -> list[Path]:
    """Every folder that came home."""
    return sorted(path for path in (home or HOME).glob("*/*") if path.is_dir())


def problems(folder: Path, day: str | None = None, hardware: str | None = None) -> list[str]:
    """Why a folder is not taken, a line each; day, hardware: what it is to be called, if not as it is."""
    day, hardware = day or folder.name, hardware or folder.parent.name
    there = sorted(path.name for path in folder.iterdir())
    if there != sorted((MANIFEST, RESULTS, VALUES)):
        return [f"must hold {MANIFEST}, {RESULTS} and {VALUES}, not {', '.join(there) or 'nothing'}"]
    if sum(path.stat().st_size for path in folder.iterdir()) > LARGEST:
        return [f"holds more than {LARGEST:,} bytes"]
    try:
        return [*_of_manifest(folder / MANIFEST, day, hardware), *_of_numbers(folder)]
    except (UserError, ValueError, OSError, pa.ArrowException) as reason:
        return [str(reason)]


def _of_manifest(path: Path, day: str, hardware: str) -> Iterator[str]:
    found = json.loads(path.read_text(encoding="utf-8"))
    yield from _misfits(found, SCHEMA, MANIFEST)
    if not isinstance(found, dict) or found.get("schema") != 1:
        yield f"{MANIFEST}: schema must be 1"
        return
    if not _NAME.fullmatch(hardware) or found.get("hardware") != hardware:
        yield f"{MANIFEST}: hardware must be the name of the folder, of small letters, digits and _"
    if date.fromisoformat(day) > date.today() or found.get("date") != day:
        yield f"{MANIFEST}: date must be the name of the folder, a day that has been"
    for run in found.get("runs") or [{}]:
        yield from _misfits(run, _RUN, "runs")
        for stage in run.get("stages", {}).values() if isinstance(run, dict) else ():
            yield from _misfits(stage, _STAGE, "stages")
    yield from (f"{MANIFEST}: {line}" for line in _texts(found))


def _misfits(found: object, schema: dict[str, type], where: str) -> Iterator[str]:
    if not isinstance(found, dict) or found.keys() != schema.keys():
        yield f"{where}: must have {', '.join(schema)}, and nothing else"
        return
    for name, kind in schema.items():
        if type(found[name]) is not kind:
            yield f"{where}.{name}: must be of type {kind.__name__}"


def _texts(tree: object) -> Iterator[str]:
    """What is no name and no number."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value)
    elif isinstance(tree, str):
        if not _PLAIN.fullmatch(tree) or len(tree.split()) > _WORDS:
            yield f"{tree[:40]!r} is a text or a place, not a name"
        elif redaction.text(tree) != tree or redaction.in_url(tree):
            yield "holds a credential"
    elif isinstance(tree, float) and not math.isfinite(tree):
        yield "holds a number that is none"


def _of_numbers(folder: Path) -> Iterator[str]:
    schema = pq.read_schema(folder / VALUES)
    if dict(zip(schema.names, schema.types, strict=True)) != _COLUMNS:
        yield f"{VALUES}: must have the columns {', '.join(_COLUMNS)}, of their types"
        return
    if (folder / RESULTS).read_text(encoding="utf-8").splitlines()[:1] != [",".join(COLUMNS)]:
        yield f"{RESULTS}: must have the columns {', '.join(COLUMNS)}"
        return
    found, rows = read_csv(folder / RESULTS), values.read(folder / VALUES)
    names = [one.base + one.method + one.metric + one.judge for one in found] + [one.label for one in found]
    names += [
        text for row in rows for text in (row.base, row.method, row.arm, *(part for s in row.settings for part in s))
    ]
    yield from (f"{RESULTS}: {line}" for line in dict.fromkeys(_texts(names)))
    again = {one.key: one.value for one in _found(rows)}
    means = [one for one in over_seeds(found) if one.statistic == "mean"]
    if not means:
        yield f"{RESULTS}: has no mean"
    for one in means:
        if not math.isclose(again.get(one.key, math.nan), one.value, rel_tol=1e-9, abs_tol=1e-12):
            yield f"{RESULTS}: {one.label}, {one.metric}: {one.value:g} is not what {VALUES} comes to"


def table(home: Path | None = None) -> str:
    """The folders as a Markdown table, a line for each method."""
    head = "| hardware | day | model | method | seeds, prompts | what | base | method | KL, nats | minutes |"
    return "\n".join([head, "|---" * 10 + "|", *(line for folder in committed(home) for line in _lines(folder))])


def _lines(folder: Path) -> Iterator[str]:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    found = [one for one in over_seeds(read_csv(folder / RESULTS)) if one.statistic == "mean"]
    what = next(name for name in SHOWN if any(one.metric == name for one in found))
    for one in (one for one in found if one.metric == what and one.arm not in ("base", "prompted")):
        base = next((b for b in found if (b.base, b.metric, b.arm) == (one.base, what, "base")), None)
        kl = next((k for k in found if (k.base, k.row, k.metric) == (one.base, one.row, "kl")), None)
        runs = [run for run in manifest["runs"] if (run["base"], run["method"]) == (one.base, one.method)]
        minutes = sum(stage["seconds"] for run in runs for stage in run["stages"].values()) / 60
        cells = [folder.parent.name, folder.name, one.base, f"`{one.label}`", f"{len(one.seeds)}, {one.n}", what]
        cells += [_said(base), _said(one), _said(kl), f"{minutes:.0f}"]
        yield f"| {' | '.join(cells)} |"


def _said(one: Result | None) -> str:
    if one is None:
        return ""
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


def main(argv: Sequence[str]) -> int:
    try:
        match argv:
            case ["make", hardware, first, *more]:
                print(make(hardware, [Path(first), *map(Path, more)]))
                return 0
            case ["check", *chosen]:
                folders = [Path(one) for one in chosen] or committed()
                wrong = [f"{folder}: {line}" for folder in folders for line in problems(folder.resolve())]
                print("\n".join(wrong) or f"{len(folders)} folders are in order")
                return 2 if wrong else 0
    except UserError as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
