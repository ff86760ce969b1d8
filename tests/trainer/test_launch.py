"""Several processes do a run's heavy stages together, however they were started: the records and curve of one."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from dlma.app import main
from dlma.errors import UserError
from dlma.objective import none
from dlma.trainer import launch

pytestmark = pytest.mark.timeout(1800)
ROOT = Path(__file__).resolve().parents[2]
SIZES = ["data.train=24", "data.validation=2", "data.test=12", "recipe.max_new_tokens=24", "recipe.epochs=1"]
SMALL = [*SIZES, "recipe.batch_pairs=8", "trainer.shard_rows=4", "trainer.threads=1", "trainer.checkpoint_steps=2"]
TWO = ["trainer=ddp", "trainer.accelerator=cpu"]
TORCHRUN = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node=2"]
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


SLURM = {
    "SLURM_STEP_NUM_TASKS": 2,
    "SLURM_STEP_TASKS_PER_NODE": 2,
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NODEID": 0,
    "SLURM_JOB_ID": os.getpid(),
    "SLURM_STEP_ID": 0,
}


def started(command, tmp_path, **own):
    log = (tmp_path / "log").open("ab")
    env = {**os.environ, "OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in own.items()}
    return subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["devices", "torchrun", "srun"])
def test_two_processes_make_the_run_of_one(single, tmp_path, how):
    command = [*(TORCHRUN if how == "torchrun" else [sys.executable]), str(ROOT / "run.py"), *SMALL, "name=two"]
    if how == "srun":
        tasks = [SLURM | {"SLURM_PROCID": number, "SLURM_LOCALID": number} for number in range(2)]
        processes = [started(command, tmp_path, **task) for task in tasks]
    else:
        processes = [started([*command, *(TWO if how == "devices" else [])], tmp_path)]
    assert [process.wait(900) for process in processes] == [0] * len(processes), (tmp_path / "log").read_text()
    same_run(single, tmp_path / "outputs" / "two")
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == {"two"}
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", "store", "log"}
    assert not list((tmp_path / "store").rglob("*.partial"))
    assert {path.name for path in (tmp_path / "outputs" / "two").iterdir()} == {p.name for p in single.iterdir()}
    assert (tmp_path / "log").read_text().count("stages run:") == 1  # one process speaks


@pytest.mark.slow
def test_torchrun_takes_a_run_up_again_whose_process_died(single, tmp_path):
    options = [*SMALL, "hydra.run.dir=run"]
    run = started([*TORCHRUN, "--max-restarts=1", str(ROOT / "run.py"), *options], tmp_path)
    while not re.search(r" pairs: .* [1-9]", (tmp_path / "log").read_text()):
        assert run.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    psutil.Process(run.pid).children()[1].send_signal(signal.SIGKILL)
    assert run.wait(900) == 0, (tmp_path / "log").read_text()
    same_run(single, tmp_path / "run")


@pytest.mark.slow
def test_in_a_sweep_whose_second_cell_loses_a_process(single, tmp_path):
    cells = [tmp_path / "sweep" / f"dlma,seed={seed}" for seed in (0, 1)]
    sweep = started(
        [sys.executable, str(ROOT / "run.py"), "-m", *SMALL, *TWO, "seed=0,1", "hydra.sweep.dir=sweep"], tmp_path
    )
    while not (ranks := ranks_of(sweep)) or not (cells[1] / "status.json").is_file():
        assert sweep.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    ranks[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    assert sweep.wait(60) == 2 and time.monotonic() - began < 30
    psutil.wait_procs(ranks, timeout=10)
    assert not any(rank.is_running() for rank in ranks)
    same_run(single, cells[0])
    found = statuses_in(tmp_path / "sweep")
    reason = "process 1 of the run ended: killed by signal SIGKILL"
    assert [found[cell.name]["status"] for cell in cells] == ["done", "failed"]
    assert found[cells[1].name]["reason"] == reason
    assert (tmp_path / "log").read_text().count(f"error: {reason}") == 1


@pytest.mark.slow
def test_cells_side_by_side_start_their_own(single, tmp_path):
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep", "seed=0,1"]
    sweep = started([sys.executable, str(ROOT / "run.py"), "-m", *SMALL, *TWO, *joblib], tmp_path)
    assert sweep.wait(900) == 0, (tmp_path / "log").read_text()
    same_run(single, tmp_path / "sweep" / "dlma,seed=0")


def commands():
    """What docs/scale.md says to type for several processes, at the size of these tests."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "scale.md").read_text(), re.S)
    lines = [line for block in blocks for line in block.splitlines() if not re.search("sampler=server|mode=plan", line)]
    return [line for line in lines if line.startswith(("python", "torchrun"))]


TOY = {
    "python": sys.executable,
    "torchrun": TORCHRUN[0],
    "run.py": str(ROOT / "run.py"),
    "trainer=gpu": "trainer=cpu",
    "--nnodes=2": "--nnodes=1",
    "--nproc-per-node=8": "--nproc-per-node=2",
    "--rdzv-endpoint=HOST:29400": "--rdzv-endpoint=localhost:0",
    **{f"trainer.devices={number}": "trainer.devices=2" for number in (4, 8)},
    **dict.fromkeys(("model=hf", "model.path=MODEL", "data=jsonl", "data.path=PROMPTS.jsonl"), ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_page_does_at_toy_size_what_it_says(tmp_path, line):
    if "executor=ray" in line:
        pytest.importorskip("ray", reason="pip install 'dlma[ray]'")
    toy = [word for word in (TOY.get(word, word) for word in line.split()) if word]
    run = started([*toy, *SMALL, "trainer.accelerator=cpu"], tmp_path)
    assert run.wait(1200) == 0, (tmp_path / "log").read_text()
    manifests = [json.loads(path.read_text()) for path in (tmp_path / "store").glob("policy/*/manifest.json")]
    assert manifests and all(one["machine"]["devices"].startswith("2, ") for one in manifests)
    assert ("fsdp" in line) == all("fsdp" in one["machine"]["devices"] for one in manifests)


def ranks_of(process):
    """The processes of a run, in their order; none while they start or end."""
    try:
        children = psutil.Process(process.pid).children()
        found = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.Error:  # one has just ended
        return []
    return sorted(found, key=lambda child: child.pid) if len(found) == 2 else []


def statuses_in(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/status.json")}


def config(**trainer):
    node = {"trainer": {"devices": 1, "accelerator": "cpu", **trainer}, "mode": {"_target_": "m", "_ranks_": True}}
    node["executor"] = {"_target_": "dlma.executor.local.LocalExecutor"}
    return OmegaConf.create({**node, "iterations": 1, "objective": {"_target_": "dlma.objective.none.NoTraining"}})


def torchrun(monkeypatch, count):
    place = {"RANK": 0, "WORLD_SIZE": count, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))


def test_a_rule_that_cannot_share_its_steps_is_refused_before_anything_loads(monkeypatch):
    launch.require(config(devices=2))
    monkeypatch.setattr(none.NoTraining, "shares_steps", False)
    launch.require(config())
    with pytest.raises(UserError, match=r"^trainer.devices=2: NoTraining trains in one process, not in 2$"):
        launch.require(config(devices=2))
    torchrun(monkeypatch, 4)
    with pytest.raises(UserError, match=r"^torchrun: NoTraining trains in one process, not in 4$"):
        launch.require(config())


def test_a_cluster_beside_the_processes_of_a_run_is_refused_before_anything_loads():
    cfg = config(devices=2)
    cfg.executor = {"_target_": "dlma.executor.ray.RayExecutor"}
    with pytest.raises(UserError, match=r"^trainer.devices=2: the workers of executor=ray .* one process, not by 2$"):
        launch.require(cfg)
    cfg.trainer.devices = 1
    launch.require(cfg)


@pytest.mark.parametrize(
    ("word", "reason"),
    [("objective=ppo", "PPO trains in one process"), ("iterations=2", "later rounds go on in one process, not in 2")],
)
def test_what_one_process_does_is_refused_in_a_line(run_main, word, reason):
    ran = run_main(*SMALL, word, *TWO)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert reason in ran.err


def test_devices_and_another_launcher_may_not_disagree(monkeypatch):
    torchrun(monkeypatch, 2)
    launch.require(config(devices=2))
    assert not launch.needed(config(devices=2))
    with pytest.raises(UserError, match=r"^trainer.devices=3: torchrun has started 2 processes on this machine"):
        launch.require(config(devices=3))


def test_a_launcher_is_refused_for_a_sweep_and_for_a_mode_of_one_process(monkeypatch):
    lonely = OmegaConf.create({"mode": {"_target_": "dlma.modes.score.score"}})
    launch.require_one_run(lonely, sweep=True)
    torchrun(monkeypatch, 2)
    launch.require_one_run(config(), sweep=False)
    with pytest.raises(UserError, match=r"^-m: torchrun has started 2 processes for a sweep"):
        launch.require_one_run(config(), sweep=True)
    with pytest.raises(UserError, match=r"score works in one process, and torchrun has started 2"):
        launch.require_one_run(lonely, sweep=False)


def test_devices_that_are_not_here_are_missed_before_anything_loads(monkeypatch):
    for accelerator in ("gpu", "mps"):
        with pytest.raises(UserError, match=f"trainer.accelerator={accelerator}.* sees "):
            launch.require(config(accelerator=accelerator))
    torchrun(monkeypatch, 2)
    with pytest.raises(UserError, match=r"trainer.devices=2: torch sees 0 here"):
        launch.require(config(accelerator="gpu"))


def test_this_process_starts_others_only_where_nobody_has(monkeypatch):
    assert launch.needed(config(devices=2)) and not launch.needed(config())
    lonely = config(devices=2)
    del lonely.mode["_ranks_"]
    assert not launch.needed(lonely)
    torchrun(monkeypatch, 1)
    assert not launch.needed(config(devices=2))
