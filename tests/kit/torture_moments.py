"""Kills and SIGTERM in every stage, and clocks that are set back."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from torture_sweep import Calm, Part, code_of, differences, entries, started

PUBLISHING = ("manifest", "rename", "renamed")
DAY = 86400.0
PATIENCE = 10.0  # seconds; 5 are promised (tests/system/test_stopping_stages.py), but here the machine may be busy


def spread(calm: Calm, count: int) -> Iterator[list[dict]]:
    """Moments for kills, in passes from an empty store to its end: in one each stage is struck once, if at all.

    Most fall evenly over each stage's time, the others while stages are published, and while run folders are.
    """
    names, outputs = list(calm.stages), max(1, count // 7)
    times, puts = count - 2 * outputs, outputs
    slots = [(i * len(names) // times, i) for i in range(times)] if times else []
    struck: dict[str, list[int]] = {name: [i for slot, i in slots if slot == n] for n, name in enumerate(names)}
    passes = max((len(found) for found in struck.values()), default=0)
    for number in range(passes):
        yield [
            {"stage": name, "after": calm.stages[name] * (number + 0.5) / len(found)}
            for name, found in struck.items()
            if number < len(found)
        ]
    chosen = [(names[(3 * i + i // len(names)) % len(names)], PUBLISHING[i % 3]) for i in range(puts)]
    for at in PUBLISHING:
        yield [{"stage": name, "at": at} for name in names if (name, at) in chosen]
    yield [{"outputs": 1 + i * calm.outputs // outputs} for i in range(outputs)]


def kills(here: Path, calm: Calm, count: int) -> Part:
    """SIGKILL at every moment; each pass is run to its end and compared, and has computed no stage twice."""
    faults, struck, late = [], 0, 0
    for number, moments in enumerate(one for one in spread(calm, count) if one):
        folder, log = here / "kills", here / "kills.log"
        for moment in moments:
            code = code_of(folder, **moment, do="SIGKILL", log=str(log))
            struck, late = struck + (code == -signal.SIGKILL), late + (code == 0)
            if code not in (0, -signal.SIGKILL):
                faults.append(f"{moment}: exit code {code}, see {folder}/said.txt")
        code = code_of(folder, log=str(log))
        faults += differences(folder, code, calm.results, f"kills, pass {number + 1}")
        made = [name for kind, name, *_ in entries(log) if kind == "stage"]
        faults += [f"{name}: computed twice" for name in set(made) if made.count(name) > 1]
        log.unlink(missing_ok=True)
        if not faults:
            shutil.rmtree(folder)
    return Part(f"{struck} kills; {late} came when all was done", faults)


def terms(here: Path, calm: Calm, count: int) -> Part:
    """SIGTERM in the middle of stages: exit code 143 within seconds, and the same command goes on."""
    folder, log, faults, slowest, struck = here / "terms", here / "terms.log", [], 0.0, 0
    for name in calm.some(count):
        code = code_of(folder, stage=name, after=calm.stages[name] / 2, do="SIGTERM", log=str(log))
        ended, deeds = time.monotonic(), [line for line in entries(log) if line[0] == "deed"]
        log.unlink(missing_ok=True)
        if code == 0 and not deeds:
            continue  # the stage was over before
        struck += 1
        slowest = max([slowest, *(ended - at for _, _, at in deeds)])
        if code != 128 + signal.SIGTERM:
            faults.append(f"SIGTERM in {name}: exit code {code}, see {folder}/said.txt")
    if slowest > PATIENCE:
        faults.append(f"SIGTERM: a process ended {slowest:.1f} s after it")
    faults += differences(folder, code_of(folder), calm.results, "after the last SIGTERM")
    return Part(f"{struck} stages stopped, each within {slowest:.1f} s", faults)


def clock(here: Path, calm: Calm) -> Part:
    """A store of tomorrow, half done, that is gone on with today; and a clock set back in the middle of a run."""
    folder, names = here / "clock", list(calm.stages)
    policy = next(name for name in names if name.startswith("policy/"))
    faults = []
    if code_of(folder, stage=policy, at="manifest", do="SIGKILL", clock=DAY) != -signal.SIGKILL:
        faults.append("clock: the first start was to be killed, and was not")
    tomorrow = time.time() + DAY
    for path in folder.rglob("*"):
        os.utime(path, (tomorrow, tomorrow), follow_symlinks=False)
    faults += differences(folder, code_of(folder), calm.results, "a day back between two starts")
    shutil.rmtree(folder / "outputs")
    faults += differences(folder, code_of(folder), calm.results, "a day back, all reused")
    code = code_of(here / "clock_within", stage=names[len(names) // 2], at="begin", do="set_back", **{"with": [DAY]})
    faults += differences(here / "clock_within", code, calm.results, "a day back within a run")
    return Part("set back a day between two starts and within one", faults)


def crowd(here: Path, calm: Calm, count: int) -> Part:
    """Processes at once on one store, each with outputs of its own; together they compute each stage once."""
    folders, log = [here / f"crowd{index}" for index in range(count)], here / "crowd.log"
    (here / "crowd_store").mkdir()
    for folder in folders:
        folder.mkdir()
        (folder / "store").symlink_to(here / "crowd_store")
    processes = [started(folder, log=str(log)) for folder in folders]
    codes = [process.wait() for process in processes]
    faults = [
        line for folder, code in zip(folders, codes) for line in differences(folder, code, calm.results, folder.name)
    ]
    made = [name for kind, name, *_ in entries(log) if kind == "stage"]
    if sorted(made) != sorted(calm.stages):
        faults.append(f"{count} processes computed {len(made)} stages, the undisturbed one {len(calm.stages)}")
    return Part(f"{count} at once computed {len(made)} stages", faults)
