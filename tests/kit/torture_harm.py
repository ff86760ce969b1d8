"""Every kind of damage to every kind of artefact, one at a time, each followed by a start in the same process.

python tests/kit/torture_harm.py FOLDER COUNT: a finished sweep's folder, and how many harms; prints a Part as JSON.
"""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from torture_sweep import HARM, ONE, ROOT, Calm, Part, code_of, differences, harm, results

from dlma.app import main
from dlma.store import stage as stages


@dataclasses.dataclass(frozen=True)
class Case:
    """A harm to a file, and what has to be ready for it; `seen`: where the damaged stage is set aside."""

    path: Path
    how: str
    begin: Callable[[], object]
    seen: Path | None = None


def run() -> int:
    """A sweep of one method in this process, as a new one would see the disk."""
    stages._verified.clear()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return main(ONE)


def of_stages() -> Iterator[Case]:
    """One file of each name in each kind of stage; the run folders go, so that all is read from the store."""
    kinds: dict[tuple, Path] = {}
    used = json.loads(Path("outputs/torture/dlma/manifest.json").read_text()).values()
    places = [Path("store", stage["name"], stage["key"]) for stage in used]
    for path in sorted(path for place in places for path in place.rglob("*") if path.is_file()):
        name, _, *inside = path.parts[1:]
        kinds.setdefault((name, *inside), path)
    for path in kinds.values():
        stage = Path(*path.parts[:3])
        aside = stage.with_name(f"{stage.name}.damaged-1")
        for how in HARM:
            yield Case(path, how, lambda: shutil.rmtree("outputs", ignore_errors=True), aside)


def of_run_folders() -> Iterator[Case]:
    """Every file of a run folder; its own results are published again from the store."""
    for path in sorted(path for path in Path("outputs/torture/dlma").rglob("*") if path.is_file()):
        for how in HARM:
            yield Case(path, how, lambda: None)


def of_the_store() -> Iterator[Case]:
    """What lies in a store besides its stages."""
    for path in sorted(path for path in Path("store").iterdir() if path.is_file()):
        for how in HARM:
            yield Case(path, how, lambda: shutil.rmtree("outputs", ignore_errors=True))


def of_work(states: list[Path]) -> Iterator[Case]:
    """What killed stages left: shards, resume points, their seals, the files that are whole already."""
    for state in states:
        for path in sorted(path for path in state.glob("store/*/*.partial/**/*") if path.is_file()):
            for how in HARM:
                yield Case(path.relative_to(state), how, lambda state=state: _replace(state))


def _replace(state: Path) -> None:
    for name in ("store", "outputs"):
        shutil.rmtree(name, ignore_errors=True)
        shutil.copytree(state / name, name)


def chosen(states: list[Path], count: int) -> list[Case]:
    """So many of all cases, evenly; those of work come last, as they put other stores in place."""
    every = [*of_stages(), *of_run_folders(), *of_the_store(), *of_work(states)]
    count = min(count, len(every))
    return [every[i * len(every) // count] for i in range(count)]


def done_to(case: Case, wanted: dict[str, bytes]) -> list[str]:
    """Do one harm and run the sweep; what is wrong then. What a run set aside, as it was changed, is not of it."""
    what = f"{case.path} {case.how}"
    case.begin()
    if not case.path.is_file():
        return [f"{what}: it is not there: an earlier start did not write it again"]
    harm(case.path, case.how)
    code = run()
    for aside in Path("outputs").glob("torture/*/*.aside-*"):
        shutil.rmtree(aside)
    faults = differences(Path(), code, wanted, what)
    if case.seen is not None:
        if case.seen.is_dir():
            shutil.rmtree(case.seen)
        else:
            faults.append(f"{what}: not noticed")
    return faults


def killed(here: Path, calm: Calm) -> list[Path]:
    """Folders of sweeps that were killed late in stages with shards, and with resume points."""
    found = []
    for kind in ("pairs", "policy"):
        name = next(stage for stage in calm.stages if stage.startswith(f"{kind}/"))
        folder = here / f"killed_{kind}"
        code_of(folder, stage=name, after=calm.stages[name] * 0.8, do="SIGKILL")
        found.append(folder)
    return found


def damage(here: Path, calm: Calm, count: int) -> Part:
    """Harms spread evenly over all of them, in a process of its own."""
    folder = here / "harm"
    shutil.copytree(calm.folder, folder, symlinks=True)
    states = [str(path) for path in killed(here, calm)]
    words = [sys.executable, __file__, str(folder), str(count), *states]
    told = subprocess.run(
        words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    if told.returncode:
        return Part("broken off", [told.stderr[-2000:]])
    return Part(**json.loads(told.stdout))


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    shutil.rmtree("outputs/torture/rlcd")
    wanted = results(Path())
    cases = chosen([Path(name) for name in sys.argv[3:]], int(sys.argv[2]))
    lines = [line for case in cases for line in done_to(case, wanted)]
    kinds = {(case.path.parts[1], case.path.name) for case in cases}
    print(json.dumps(dataclasses.asdict(Part(f"{len(cases)} harms to {len(kinds)} kinds of files", lines))))
