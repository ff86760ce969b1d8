"""Two processes do a run's heavy stages together: the same records and curve as one, no trace of the second."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import statuses

from dlma import launch
from dlma.app import main
from dlma.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
SIZES = ["data.train=24", "data.validation=2", "data.test=12", "recipe.max_new_tokens=24", "recipe.epochs=1"]
SMALL = [*SIZES, "recipe.batch_pairs=8", "trainer.shard_rows=4", "trainer.threads=1", "trainer.checkpoint_steps=2"]
TWO = ["trainer=ddp", "trainer.accelerator=cpu"]
RECORDS = ("pairs", "scored", "answers")


def curve(folder):
    return [{k: float(v) for k, v in row.items()} for row in csv.DictReader((folder / "train.csv").open())]


def same_run(one, two):
    for name in RECORDS[:2]:
        assert pq.read_table(one / f"{name}.parquet").equals(pq.read_table(two / f"{name}.parquet")), name
    rows = [pq.read_table(folder / "answers.parquet").to_pylist() for folder in (one, two)]
    untrained = [[row for row in found if row["arm"] != "aligned"] for found in rows]
    assert untrained[0] == untrained[1]
    assert [row["arm"] for row in rows[0]] == [row["arm"] for row in rows[1]]
    steps = [curve(folder) for folder in (one, two)]
    assert len(steps[0]) == len(steps[1]) == 3
    for ours, theirs in zip(*steps, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4, abs=2e-5)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The folder of the run in one process."""
    place = tmp_path_factory.mktemp("single")
    before = os.getcwd()
    os.chdir(place)
    try:
        assert main([*SMALL, "name=one"]) == 0
    finally:
        os.chdir(before)
    return place / "outputs" / "one"


@pytest.mark.slow
def test_from_the_command_line(single, tmp_path):
    command = [sys.executable, str(ROOT / "run.py"), *SMALL, *TWO, "name=two"]
    ran = subprocess.run(command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=200)
    assert ran.returncode == 0
    same_run(single, tmp_path / "outputs" / "two")
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == {"two"}
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", "store"}
    assert not list((tmp_path / "store").rglob("*.partial"))
    assert {path.name for path in (tmp_path / "outputs" / "two").iterdir()} == {p.name for p in single.iterdir()}


@pytest.mark.slow
def test_in_a_sweep_whose_second_cell_loses_a_process(single, run_main, monkeypatch):
    start, times = launch.RankZero._start, []

    def start_and_kill(leader):
        start(leader)
        times.append(time.monotonic())
        if len(times) == 2:
            os.kill(leader._followers[0]._process.pid, signal.SIGKILL)

    monkeypatch.setattr(launch.RankZero, "_start", start_and_kill)
    ran = run_main("-m", *SMALL, *TWO, "seed=0,1")
    assert ran.code == 2
    assert time.monotonic() - times[1] < 60
    first, second = (statuses(ran.folder)[name] for name in sorted(statuses(ran.folder)))
    assert first["status"] == "done"
    same_run(single, Path(first["result"]["run_dir"]))
    assert second["reason"] == "process 1 of the run ended: killed by signal SIGKILL"
    assert len([path for path in (ran.folder / "outputs").glob("*/*") if path.is_dir()]) == 2
    assert not crew_is_left()


def crew_is_left():
    listed = subprocess.run(["ps", "-ef"], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if launch.MODULE in line and f" {os.getpid()} " in line]


def test_another_launcher_is_refused_in_one_line(run_main, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    ran = run_main(*SMALL, *TWO)
    assert ran.code == 2
    assert (
        "started by torchrun"
        in json.loads((ran.folder / "outputs").glob("*/status.json").__next__().read_text())["reason"]
    )


def test_a_rule_that_cannot_share_its_steps_is_refused():
    class Cell:
        class cfg:
            class trainer:
                devices = 2

    class Lonely:
        pass

    with pytest.raises(UserError, match="Lonely trains in one process"):
        launch.require_shared_steps(Cell, Lonely())
    Cell.cfg.trainer.devices = 1
    assert isinstance(launch.require_shared_steps(Cell, Lonely()), Lonely)
