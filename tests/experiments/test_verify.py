"""One cell of every experiment, measured again: which it is, and what its values come to beside the committed ones."""

import dataclasses
import shlex
import shutil
import subprocess
import sys

import planted_runs
import pytest
import yaml

from dlma.sweep import estimates
from dlma.sweep.results import over_seeds, read_csv, write_csv
from experiments import tables, verify


@pytest.fixture(scope="module")
def chosen():
    """Of every experiment that can be verified the cell that is run again."""
    return {name: verify.cheapest(name) for name in tables.names() if verify._missing(name) is None}


def test_nearly_every_experiment_with_a_table_has_a_cell_that_one_command_makes(chosen):
    """The others: a ranking without training, and the steps of one run each."""
    assert {name for name, cell in chosen.items() if cell is None} == {"over_optimisation", "workbench_validity"}
    assert len(chosen) > 15


def test_the_cell_has_the_seeds_and_the_settings_of_its_row(chosen):
    for name, cell in chosen.items():
        if cell is None:
            continue
        said = dict(word.partition("=")[::2] for word in cell.words)
        assert tuple(map(int, said["seed"].split(","))) == cell.row.seeds
        leaves = {key.rpartition(".")[2]: value for key, value in said.items()}
        for key, value in cell.row.settings:
            assert key not in leaves or verify._equal(leaves[key], value), (name, key)


def test_it_is_the_one_whose_runs_took_the_fewest_operations(chosen):
    """Of the comparison that is context distillation, which trains on one answer of a pair."""
    assert chosen["main_comparison"].row.method == "cd"
    found = over_seeds(read_csv(verify.HERE / "pair_budget" / "results.csv"))
    spent = {one.row: one.value for one in found if (one.metric, one.statistic, one.versus) == verify.COST}
    assert spent[chosen["pair_budget"].row.row] == min(value for value in spent.values() if value)


def test_what_a_command_leaves_at_its_default_tells_a_row_too():
    (first,) = verify._combinations(shlex.split("experiment=real name=x"))
    assert first == {"experiment": "real"}
    row = dataclasses.replace(verify.cheapest("headline").row, settings=(("beta", "0.3"),), base="b", method="m")
    assert verify._makes(first, row, ["recipe.beta"])  # conf/experiment/real.yaml
    assert not verify._makes(first, dataclasses.replace(row, settings=(("beta", "0.5"),)), ["recipe.beta"])
    assert not verify._makes(first | {"recipe.beta": "0.5"}, row, ["recipe.beta"])


def test_a_missing_wheel_or_base_or_result_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("DLMA_CACHE", str(tmp_path))
    assert "python run.py mode=fetch experiment=real" in verify._missing("real")
    assert "its bases are trained first" in verify._missing("phase_diagram")
    assert verify._missing("lab_tuning") == "a script of its own measures it"


@pytest.fixture
def again(tmp_path):
    """Planted runs of two seeds, and the results that were committed of them."""
    folders = [planted_runs.plant(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1)]
    rows = planted_runs.rows_of(*folders)
    found = over_seeds(estimates.results(rows, tested=[]))
    (row,) = [one for one in found if verify._is_of_runs(one) and one.metric == "harmful"]
    return verify.Cell(row, ()), found, rows


def test_runs_that_come_out_alike_are_the_same_and_one_value_outside_its_interval_differs(again):
    cell, found, rows = again
    verdict, lines = verify.held(cell, found, rows)
    assert verdict == "the same" and lines[0].endswith("0 within their intervals, 0 outside")
    near = [dataclasses.replace(one, value=one.value + 1e-6) if one.metric == "harmful" else one for one in found]
    assert verify.held(cell, near, rows)[0] == "alike"
    far = [
        dataclasses.replace(one, value=0.9, low=0.85, high=0.95) if one.metric == "harmful" else one for one in found
    ]
    verdict, lines = verify.held(cell, far, rows)
    assert verdict == "differs" and lines[1].startswith("dlma, harmful: 0.3") and "committed 0.9" in lines[1]
    assert verify.held(cell, [one for one in found if one.arm == "base"], rows)[0] == "skipped"


def test_help_says_what_the_verdicts_mean_and_measures_nothing(capsys):
    assert verify.main(["--help"]) == 0
    assert "make verify" in capsys.readouterr().out


def test_the_exit_code_says_whether_one_differs(monkeypatch, capsys):
    said = {
        "a": ("the same", ["9 values"]),
        "b": ("differs", ["9 values", "x: 1, committed 2"]),
        "c": ("skipped", ["-"]),
    }
    monkeypatch.setattr(verify, "experiments", lambda: list(said))
    monkeypatch.setattr(verify, "verify", said.get)
    assert verify.main([]) == 1 and verify.main(["a", "c"]) == 0
    shown = capsys.readouterr().out
    assert "a: the same (9 values)" in shown and "b: differs (9 values)\n    x: 1, committed 2" in shown
    assert verify.main(["nowhere"]) == 2 and "nowhere: no experiment" in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_sweep_comes_out_the_same_when_it_is_measured_again(tmp_path, monkeypatch, capsys):
    """Two methods over two seeds; then the cheaper once more with nothing in the store, and against other values."""
    for name in ("run.py", "conf", "dlma"):
        (tmp_path / name).symlink_to(verify.ROOT / name)
    monkeypatch.setattr(verify, "ROOT", tmp_path)
    for module in (verify, tables):
        monkeypatch.setattr(module, "HERE", tmp_path / "experiments")
    (tmp_path / "experiments" / "tiny").mkdir(parents=True)
    words = "data.train=24 data.validation=4 data.test=8 recipe.max_new_tokens=32 recipe.epochs=1 trainer.threads=1"
    command = f"python run.py -m method=cd,rlcd seed=0,1 {words} store.root=kept name=tiny"
    table = {"commands": [command], "show": ["harmful", "kl", "tokens"], "sweep": {"tested": []}}
    (tmp_path / "experiments" / "tiny" / "table.yaml").write_text(yaml.safe_dump(table))
    subprocess.run([sys.executable, *shlex.split(command)[1:]], cwd=tmp_path, check=True)
    tables.collect("tiny", [tmp_path / "outputs" / "tiny"])
    shutil.rmtree(tmp_path / "kept")
    assert verify.main(["tiny"]) == 0
    assert "tiny: the same (3 values, 0 within their intervals, 0 outside)" in capsys.readouterr().out
    path = tmp_path / "experiments" / "tiny" / "results.csv"
    moved = [dataclasses.replace(one, value=one.value + 9, low=8.0, high=99.0) for one in read_csv(path)]
    path.write_bytes(write_csv(moved))
    assert verify.main(["tiny"]) == 1
    assert "tiny: differs" in capsys.readouterr().out
