"""`mode=report` and the end of a sweep: four files from any finished runs, or one line that says what is wrong."""

import csv
import json

import pytest
from command_line import MODE
from planted_runs import options, plant

from dlma.modes import report
from dlma.report import tables as sweep_tables
from dlma.runs import cells as run_folders
from dlma.sweep.results import read_csv

FILES = {"report.html", "report.md", "report.tex", "results.csv"}


@pytest.fixture
def runs(elsewhere):
    for method in ("dlma", "rlcd"):
        for seed in (0, 1):
            plant(elsewhere / "outputs" / "sweep" / f"{method},seed={seed}", method=method, seed=seed)
    return elsewhere / "outputs"


def test_the_report_of_any_runs(run_main, runs):
    ran = run_main("mode=report", "runs=outputs/**", "sweep.baseline=rlcd")
    assert ran.code == 0, ran.err
    assert "report: " in ran.out
    folder = runs / "report"
    assert {path.name for path in folder.iterdir()} >= FILES
    found = read_csv(folder / "results.csv")
    assert {row.method for row in found} == {"base", "prompted", "dlma", "rlcd"}
    assert any((one.metric, one.statistic, one.versus) == ("harmful", "difference", "rlcd") for one in found)
    assert sweep_tables.markdown(found) in (folder / "report.md").read_text()
    assert sweep_tables.latex(found) == (folder / "report.tex").read_text()
    again = run_main("mode=report", "runs=outputs/**", "sweep.baseline=rlcd", "name=other")
    assert again.code == 0
    assert (runs / "other" / "results.csv").read_bytes() == (folder / "results.csv").read_bytes()


def test_a_method_and_a_judge_of_any_name_pass_the_whole_report(run_main, elsewhere):
    """Names that read like a comparison, a curve and a verdict: every number is under its own name in all files."""
    method, judge, folder = "a minus b by c", "x at kl 1", elsewhere / "outputs" / "report"
    said = [
        {"prompt_id": f"p{i}", "judge": judge, "arm": "aligned", "against": "base", "outcome": "win"} for i in (0, 1)
    ]
    for one in (method, "rlcd"):
        for beta in (0.5, 2.0):
            plant(elsewhere / "outputs" / "sweep" / f"{one}{beta}", method=one, overrides={"recipe.beta": beta},
                  kl=1 / beta, tag=one + str(beta), verdicts=said)  # fmt: skip
    ran = run_main("mode=report", "runs=outputs/sweep", "sweep.baseline=rlcd")
    assert ran.code == 0, ran.err
    found = read_csv(folder / "results.csv")
    own = {(one.statistic, one.axis, one.versus, one.judge) for one in found if one.method == method}
    assert own >= {
        ("mean", "", "", ""), ("difference", "", "rlcd, beta=0.5", ""), ("mean", "kl", "", ""),
        ("difference", "kl", "rlcd", ""), ("share", "", "base", judge),
    }  # fmt: skip
    assert {one.metric for one in found if one.judge} == {"win", "tie", "lose", "unparsed"}
    for name in ("report.md", "report.tex", "report.html"):
        text = (folder / name).read_text()
        assert f"{method}, beta=0.5" in text and judge in text
    assert sweep_tables.markdown(found) in (folder / "report.md").read_text()


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ([], "mode=report: say which runs"),
        (["runs=nowhere/**"], "runs=nowhere/**: no run folder there"),
        (["runs=outputs/**", "sweep.baseline=nosuch"], "sweep.baseline=nosuch: no setting of that name"),
        (["runs=outputs/**", "sweep.tested=[nosuch]"], "sweep.tested=nosuch: no such metric"),
        (["runs=outputs/**", "sweep.metric=nosuch"], "sweep.metric=nosuch: no such metric"),
        (["runs=outputs/**", "sweep.metric=perplexity"], "sweep.metric=perplexity: curves are of means and shares"),
        (["runs=outputs/**", "sweep.curve_axis=[beta]"], "sweep.curve_axis=beta: no key of these runs"),
        (["runs=outputs/**", "sweep.reference=none.csv"], "sweep.reference=none.csv: no results.csv of a sweep"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run_main, runs, more, line):
    ran = run_main("mode=report", *more)
    assert ran.code == 2 and line in ran.err
    assert not (runs / "report" / "report.html").exists()


def test_where_no_curve_has_the_name_that_others_are_held_against_it_is_said(run_main, runs):
    ran = run_main("mode=report", "runs=outputs/**", "sweep.curves_against=nosuch")
    assert ran.code == 0
    assert "warning: sweep.curves_against=nosuch: no curve of that name, so none is compared; there are dlma" in ran.out
    assert "curves_against" not in run_main("mode=report", "runs=outputs/**", "sweep.curves_against=dlma").out


def test_what_the_report_will_read_is_read_before_the_sweep(run_main, mode):
    mode(planting)
    for wrong in ("sweep.reference=none.csv", "sweep.known=none.yaml"):
        ran = run_main("-m", MODE, wrong, "seed=0,1")
        assert ran.code == 2 and wrong in ran.err and "stages run" not in ran.out


def test_a_key_of_the_curves_that_no_cell_has_is_said_before_the_sweep(run_main, mode):
    mode(planting)
    ran = run_main("-m", MODE, "sweep.curve_axis=[recipe.beta,objective.scale]", "seed=0,1")
    assert ran.code == 2 and "sweep.curve_axis=objective.scale: no key of these runs" in ran.err
    assert "cells finished" not in ran.out
    ran = run_main("-m", MODE, "sweep.curve_axis=[recipe.beta,labels.max_pairs]", "seed=0", "name=null_is_a_value")
    assert "done" in ran.out


def planting(cfg, /):
    """A mode that leaves what a finished cell leaves."""
    from dlma.config.run_names import run_folder
    from dlma.errors import UserError

    folder = run_folder()
    if cfg.seed == 2:
        raise UserError("seed 2 is unlucky")
    lent = plant(
        folder.parent.parent / f"lent-{cfg.seed}-{cfg.recipe.beta}",
        seed=cfg.seed,
        overrides={"recipe.beta": cfg.recipe.beta},
    )
    for path in lent.iterdir():
        if path.name != "status.json":
            path.replace(folder / path.name)
    (lent / "status.json").unlink()
    lent.rmdir()
    return {"counts": {"run": {"policy": 1}, "reused": {}}, "summary": []}


def test_a_sweep_ends_with_its_report_also_when_a_cell_failed(run_main, mode, elsewhere):
    mode(planting)
    ran = run_main("-m", MODE, "seed=0,1,2", "name=trial")
    assert ran.code == 2
    folder = elsewhere / "outputs" / "trial"
    assert {path.name for path in folder.iterdir()} >= FILES
    text = (folder / "report.md").read_text()
    assert "3 cells: 2 done, 1 failed." in text and "- dlma,seed=2: failed, seed 2 is unlucky" in text
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert {row["seeds"] for row in rows if row["method"] == "dlma"} == {"0", "1", "0+1"}


def test_a_sweep_of_another_mode_leaves_no_report(run_main, mode, elsewhere):
    mode(lambda cfg, /: {})
    assert run_main("-m", MODE, "seed=0,1", "name=trial").code == 0
    assert not list(elsewhere.rglob("report.md"))


def test_a_wrong_baseline_does_not_cost_the_sweep_its_cells(run_main, mode, elsewhere):
    mode(planting)
    ran = run_main("-m", MODE, "seed=0,1", "name=trial", "sweep.baseline=nosuch")
    assert ran.code == 2 and "sweep.baseline=nosuch" in ran.err
    done = [json.loads(path.read_text())["status"] for path in elsewhere.glob("outputs/trial/*/status.json")]
    assert done == ["done", "done"]
    assert run_main("mode=report", "runs=outputs/trial").code == 0


def test_a_folder_with_commas_in_its_name_can_be_named(run_main, elsewhere):
    plant(elsewhere / "outputs" / "dlma,seed=4", seed=4)
    plant(elsewhere / "outputs" / "rlcd", method="rlcd")
    assert run_main("mode=report", "runs='outputs/dlma,seed=4'", "name=one").code == 0
    assert run_main("mode=report", "runs='outputs/rlcd, outputs/dlma*'", "name=two").code == 0
    rows = {name: (elsewhere / "outputs" / name / "results.csv").read_text() for name in ("one", "two")}
    assert "rlcd," in rows["two"] and "rlcd," not in rows["one"]


def test_a_sweep_whose_baseline_failed_is_held_against_the_base(tmp_path, capsys):
    chosen = options(baseline="rlcd")
    cells = [run_folders.read_cell(plant(tmp_path / "a"))]
    assert report._of_what_ended(chosen, cells).baseline is None
    assert "sweep.baseline=rlcd: no setting of that name" in capsys.readouterr().out
    cells.append(run_folders.read_cell(plant(tmp_path / "b", method="rlcd", tag="r")))
    assert report._of_what_ended(chosen, cells) == chosen
