"""Sweeps: a failed cell stops no other, an identical sweep lands in the same folders, every launcher will do."""

import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import yaml
from command_line import MODE, statuses
from hydra.types import RunMode
from source_tree import ROOT

from dlma.config import compose
from dlma.config.help import conf_dir
from dlma.config.hydra_internals import Loader
from dlma.errors import UserError


def counted(cfg, /):
    seed = cfg.seed
    if seed == 1:
        raise UserError("seed 1 is unlucky")
    if seed == 2:
        raise ValueError("seed 2 is worse")
    return {"counts": {"run": {"policy": 1}, "reused": {"pairs": seed}}, "summary": []}


def test_a_failed_cell_stops_no_other_and_its_reason_is_kept(run_main, mode):
    mode(counted)
    ran = run_main("-m", MODE, "seed=0,1,2,3")
    assert ran.code == 1  # an unexpected error outweighs a user's mistake
    cells = {name.rpartition("/")[2]: cell for name, cell in statuses(ran.folder).items()}
    assert {name: cell["status"] for name, cell in cells.items()} == {
        "dlma,seed=0": "done",
        "dlma,seed=1": "failed",
        "dlma,seed=2": "failed",
        "dlma,seed=3": "done",
    }
    assert cells["dlma,seed=1"]["reason"] == "seed 1 is unlucky"
    assert cells["dlma,seed=2"]["reason"] == "ValueError: seed 2 is worse"
    assert not list(ran.folder.rglob("multirun.yaml"))
    lines = ran.out.splitlines()
    assert next(line.split() for line in lines if line.startswith("done ")) == ["done", "dlma,seed=0"]
    assert "failed       dlma,seed=1: seed 1 is unlucky" in lines
    assert "stages run: policy 2" in lines and "stages reused: pairs 3" in lines


def test_the_code_of_a_sweep_with_only_users_mistakes_is_2_and_of_a_clean_one_0(run_main, mode):
    mode(counted)
    assert run_main("-m", MODE, "seed=0,1").code == 2
    assert run_main("-m", MODE, "seed=0,3").code == 0


@pytest.mark.slow
def test_an_identical_second_sweep_lands_in_the_same_folders(run_main, mode):
    mode(lambda cfg, /: {})
    argv = ["-m", MODE, "method=dlma,rlcd", "seed=0,1", "recipe.beta=0.5"]
    assert run_main(*argv).code == 0
    first = sorted(statuses(Path.cwd()))
    assert run_main(*argv).code == 0
    assert sorted(statuses(Path.cwd())) == first
    sweep = {name.partition("/")[0] for name in first}
    assert sweep == {"dlma+rlcd,mode._target_=dlma.modes.check.show,recipe.beta=0.5,seed=0+1"}
    assert {name.partition("/")[2] for name in first} == {
        f"{method},seed={seed}" for method in ("dlma", "rlcd") for seed in (0, 1)
    }


def test_a_named_sweep_keeps_its_cells_apart(run_main, mode):
    mode(lambda cfg, /: {})
    assert run_main("-m", MODE, "seed=0,1", "name=trial").code == 0
    assert sorted(statuses(Path.cwd())) == ["trial/dlma,seed=0", "trial/dlma,seed=1"]


def test_only_cells_of_this_sweep_are_reported(run_main, mode):
    mode(lambda cfg, /: {})
    run_main("-m", MODE, "seed=0,1", "name=trial")
    ran = run_main("-m", MODE, "seed=2,3", "name=trial")
    assert [line.split()[1] for line in ran.out.splitlines() if line.startswith("done  ")] == [
        "dlma,seed=2",
        "dlma,seed=3",
    ]


def test_an_interrupted_sweep_reports_its_cells_and_stops(run_main, mode):
    def stop(cfg, /):
        if cfg.seed == 1:
            raise KeyboardInterrupt
        return {}

    mode(stop)
    ran = run_main("-m", MODE, "seed=0,1,2")
    assert ran.code == 130
    assert "1 of 3 cells were not started" in ran.out
    found = {name.rpartition("/")[2]: cell["status"] for name, cell in statuses(ran.folder).items()}
    assert found == {"dlma,seed=0": "done", "dlma,seed=1": "interrupted"}


def test_an_experiments_own_sweep_runs_without_the_flag(run_main, mode, tmp_path):
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    text = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params: {seed: '5,6'}\n"
    (folder / "study.yaml").write_text(text)
    seen = []
    mode(lambda cfg, /: seen.append(cfg.seed) or {})
    assert run_main("--config-dir", str(tmp_path / "mine"), "experiment=study", MODE).code == 0
    assert seen == [5, 6]


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_a_sweep_narrowed_on_the_command_line_runs_each_cell_once(prefix, run_main, mode, tmp_path):
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    text = "# @package _global_\nhydra:\n  sweeper:\n    params: {recipe.beta: '0.5,1.0,2.0', seed: '5,6,7'}\n"
    (folder / "study.yaml").write_text(text)
    seen = []
    mode(lambda cfg, /: seen.append((cfg.recipe.beta, cfg.seed)) or {})
    narrowed = [f"{prefix}recipe.beta=0.25", f"{prefix}seed=6,7"]
    ran = run_main("--config-dir", str(tmp_path / "mine"), "-m", "experiment=study", MODE, *narrowed)
    assert ran.code == 0, ran.err
    assert seen == [(0.25, 6), (0.25, 7)]
    cells = list(statuses(ran.folder).values())
    assert sorted(cell["number"] for cell in cells) == [0, 1]
    for cell in cells:
        keys = [line.partition("=")[0].lstrip("+") for line in cell["overrides"]]
        assert len(set(keys)) == len(keys)


def test_cells_in_other_processes_have_the_same_names_and_are_reported(run_main):
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    ran = run_main("-m", MODE, "seed=0,1", "store.root=x", *launcher)
    assert ran.code == 0, ran.err
    assert [line.split() for line in ran.out.splitlines() if line.startswith("done  ")] == [
        ["done", "dlma,seed=0"],
        ["done", "dlma,seed=1"],
    ]


@pytest.mark.slow
def test_cells_side_by_side_compute_a_shared_stage_once_with_one_thread_each(run_main):
    small = ["data.train=16", "data.validation=4", "data.test=4", "recipe.epochs=1", "recipe.max_new_tokens=24"]
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    ran = run_main("-m", "recipe.beta=0.5,1.0", *small, *launcher)
    assert ran.code == 0, ran.err
    counts = [cell["result"]["counts"] for cell in statuses(ran.folder).values()]
    total = {state: Counter() for state in ("run", "reused")}
    for cell in counts:
        for state, found in cell.items():
            total[state].update(found)
    shared = ("prompts", "pairs", "scored")
    assert {name: (total["run"][name], total["reused"][name]) for name in shared} == dict.fromkeys(shared, (1, 1))
    assert total["run"]["policy"] == 2
    threads = [yaml.safe_load(path.read_text())["trainer"]["threads"] for path in ran.folder.rglob("config.yaml")]
    assert threads == [1, 1]


def test_the_preset_of_slurm_is_an_array_whose_jobs_are_queued_again():
    """SLURM itself is not here: what its launcher would be given is looked at."""
    path = compose.search_path(conf_dir(), None)
    plan = compose.plan(path, ["hydra/launcher=slurm", "hydra.launcher.partition=night", "seed=0,1"], multirun=True)
    assert (plan.launcher.rpartition(".")[2], plan.cells) == ("SlurmLauncher", 2)
    loader = Loader(path)
    loader.ensure_main_config_source_available()
    given = loader.load_configuration("config", plan.overrides, RunMode.MULTIRUN).hydra.launcher
    assert (given.partition, given.array_parallelism, given.max_num_timeout) == ("night", 16, 3)
    assert given.additional_parameters == {"requeue": True}


SMALL = ["data.train=16", "data.validation=4", "data.test=4", "recipe.epochs=1", "recipe.max_new_tokens=8", "name=grid"]
LAUNCHERS = {
    "submitit": (["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=30"], "submitit.core._submit"),
    "joblib": (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], "LokyProcess"),
}


def kill_once_running(word: str, count: int, most: int) -> threading.Thread:
    """Kill the cells' processes, `most` of them, as soon as `count` cells say that they run."""

    def work() -> None:
        while sum(cell["status"] == "running" for cell in statuses(Path.cwd()).values()) < count:
            time.sleep(0.02)
        children = psutil.Process().children(recursive=True)
        for child in [child for child in children if word in " ".join(child.cmdline())][:most]:
            child.kill()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name, lost, cells", [("submitit", 2, 12), ("joblib", 1, 4)])
def test_lost_processes_end_no_sweep_and_the_same_command_makes_one_table(run_main, name, lost, cells):
    launcher, word = LAUNCHERS[name]
    grid = ["-m", "method=dlma,rlcd", f"seed={','.join(map(str, range(cells // 2)))}", *SMALL]
    killer = kill_once_running(word, lost, lost if name == "submitit" else 9)  # joblib keeps those of former sweeps too
    first = run_main(*grid, *launcher)
    killer.join(timeout=5)
    assert first.code == 1 and "Traceback" not in first.err
    assert first.err.count("was lost: ") == (lost if name == "submitit" else 1)
    found = Counter(cell["status"] for cell in statuses(first.folder).values())
    assert found["running"] == 0
    if name == "submitit":  # the other jobs are waited for
        assert found["done"] == cells - lost
    again = run_main(*grid, *launcher)
    assert again.code == 0 and f"{cells} of {cells} cells finished" in again.out
    tables = {path.parent.name: path.read_bytes() for path in again.folder.glob("outputs/grid/*/metrics.csv")}
    assert len(tables) == cells
    whole = run_main(*grid, "store.root=other", f"hydra.sweep.dir={again.folder / 'outputs' / 'whole'}")
    assert whole.code == 0
    for cell, table in tables.items():
        assert (whole.folder / "outputs" / "whole" / cell / "metrics.csv").read_bytes() == table, cell


@pytest.fixture
def ray_launcher(monkeypatch):
    for module in ("ray", "hydra_plugins.hydra_ray_launcher"):
        pytest.importorskip(module, reason="pip install 'dlma[ray]', then --no-deps hydra-ray-launcher")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield ["hydra/launcher=ray", "hydra.launcher.ray.init.address=local", "+hydra.launcher.ray.init.num_cpus=2"]
    import ray

    ray.shutdown()  # which the launcher leaves to the end of its process


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_cell_that_ray_gives_up_ends_no_sweep_and_the_same_command_goes_on(run_main, ray_launcher):
    grid = ["-m", "method=dlma,rlcd", "seed=0,1", *SMALL, *ray_launcher]
    killer = kill_once_running("ray::_run_job", 1, 1)
    first = run_main(*grid, "+hydra.launcher.ray.remote.max_retries=0")
    killer.join(timeout=5)
    assert first.code == 1 and first.err.count("a job was lost: ") == 1
    assert "3 of 4 cells finished" in first.out
    assert Counter(cell["status"] for cell in statuses(first.folder).values())["done"] == 3
    again = run_main(*grid)
    assert again.code == 0 and "4 of 4 cells finished" in again.out


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_cells_that_are_killed_under_ray_are_started_anew_and_make_one_table(run_main, ray_launcher):
    grid = ["-m", "method=dlma,rlcd", "seed=0,1,2,3,4,5", *SMALL]
    killer = kill_once_running("ray::_run_job", 2, 2)
    there = run_main(*grid, *ray_launcher)
    killer.join(timeout=5)
    assert not killer.is_alive()
    assert there.code == 0 and "12 of 12 cells finished" in there.out
    here = run_main(*grid, "store.root=other", f"hydra.sweep.dir={there.folder / 'outputs' / 'whole'}")
    assert here.code == 0
    tables = {path.parent.name: path.read_bytes() for path in there.folder.glob("outputs/grid/*/metrics.csv")}
    assert len(tables) == 12
    for cell, table in tables.items():
        assert (here.folder / "outputs" / "whole" / cell / "metrics.csv").read_bytes() == table, cell
