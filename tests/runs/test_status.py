"""The ledger of a sweep: finished cells are not run again, failed ones on request, and a failure can stop the rest."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest
from command_line import MODE, statuses
from store_kit import spoil

from dlma import files
from dlma.app import conf_dir
from dlma.config.compose import plan, search_path
from dlma.errors import Unavailable, UserError
from dlma.runs import status as run_status
from dlma.runs import written
from dlma.runs.folder import FINISHED, STATUS

NAMES = (*FINISHED, "report.html")


@pytest.fixture
def cells(mode):
    """The seeds that were run, and which of them fail: `cells.unlucky`."""

    class Cells(list):
        unlucky = frozenset()
        reason = UserError
        mute = False

    seen = Cells()

    def run(cfg, /):
        from dlma.config.run_names import run_folder

        seen.append(cfg.seed)
        if cfg.seed in seen.unlucky:
            if seen.mute:  # what is to be said at the end cannot be written
                (run_folder() / "status.json").unlink()
                (run_folder() / "status.json").mkdir()
            raise seen.reason(f"seed {cfg.seed} is unlucky")
        for name in NAMES:
            (run_folder() / name).write_text("a result")
        written.note(run_folder(), NAMES)
        return {"counts": {"run": {"policy": 1}, "reused": {}}, "summary": []}

    mode(run)
    return seen


@pytest.fixture
def sweep(run_main, monkeypatch):
    """A sweep in the same folder, whatever it is asked for beside its seeds; without a report, which has its tests."""
    monkeypatch.setattr("dlma.modes.report.of_sweep", lambda *args, **kwargs: None)
    return lambda *more, seeds="0,1,2": run_main("-m", MODE, f"seed={seeds}", "name=trial", *more)


def test_finished_cells_are_skipped_and_said_so(sweep, cells):
    assert sweep().code == 0
    before = statuses(Path.cwd())
    ran = sweep()
    assert cells == [0, 1, 2] and ran.code == 0
    assert "skipped      dlma,seed=0: finished at an earlier start" in ran.out
    assert "stages run: none" in ran.out and "3 of 3 cells finished" in ran.out
    assert sorted(before) == sorted(statuses(Path.cwd()))


@pytest.mark.slow
def test_new_cells_of_the_same_sweep_are_run(sweep, cells):
    sweep(seeds="0,1")
    sweep(seeds="0,1,2")
    assert cells == [0, 1, 2]


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:]), NAMES[0], "files.json"]
)
@pytest.mark.parametrize("harm", [Path.unlink, spoil], ids=["gone", "a bit"])
def test_a_finished_cell_whose_results_are_damaged_is_run_again_and_said_so(sweep, cells, name, harm):
    sweep(seeds="0,1")
    harm(next(Path.cwd().glob(f"outputs/trial/*seed=0/{name}")))
    ran = sweep(seeds="0,1")
    assert cells == [0, 1, 0]
    (line,) = [line for line in ran.out.splitlines() if line.startswith("damaged  ")]
    assert "dlma,seed=0: " in line and (name in line or name == "files.json")
    assert "skipped      dlma,seed=1" in ran.out and "skipped      dlma,seed=0" not in ran.out
    assert "damaged  " not in sweep(seeds="0,1").out


def test_failed_cells_are_listed_with_their_reason_and_retried_on_request(sweep, cells):
    cells.unlucky = {1}
    assert sweep().code == 2
    cells.unlucky = frozenset()
    ran = sweep()
    assert cells == [0, 1, 2] and ran.code == 2
    assert (
        "failed       dlma,seed=1: seed 1 is unlucky (at an earlier start; sweep.retry_failed=true runs it again)"
        in ran.out
    )
    assert sweep("sweep.retry_failed=true").code == 0
    assert cells == [0, 1, 2, 1]


def test_what_failed_for_its_surroundings_is_run_again_by_the_same_command(sweep, cells):
    cells.unlucky, cells.reason = {1}, Unavailable
    assert sweep(seeds="0,1").code == 2
    cells.unlucky = frozenset()
    assert sweep(seeds="0,1").code == 0
    assert cells == [0, 1, 1]


def test_a_cell_that_cannot_write_how_it_ended_is_listed_all_the_same(sweep, cells):
    cells.unlucky, cells.mute = {1}, True
    ran = sweep(seeds="0,1")
    assert ran.code == 2 and "failed       dlma,seed=1: seed 1 is unlucky" in ran.out and "not started" not in ran.out


def test_a_clock_that_is_set_back_loses_no_cell(sweep, cells, monkeypatch):
    clock = iter(range(10**9, 0, -60))
    monkeypatch.setattr(run_status.time, "time", lambda: float(next(clock)))
    ran = sweep(seeds="0,1")
    assert ran.code == 0 and "2 of 2 cells finished" in ran.out
    assert "2 of 2 cells finished" in sweep(seeds="0,1").out and cells == [0, 1]


def test_a_cell_with_another_config_is_run(sweep, cells):
    sweep(seeds="0,1")
    sweep("recipe.beta=2.0", seeds="0,1")
    assert cells == [0, 1, 0, 1]


def test_a_cell_that_was_interrupted_is_run_again(sweep, cells):
    sweep(seeds="0,1")
    path = next(Path.cwd().glob("outputs/trial/*seed=1/status.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "interrupted"}))
    sweep(seeds="0,1")
    assert cells == [0, 1, 1]


def test_a_failure_stops_the_rest_if_asked(sweep, cells):
    cells.unlucky = {1}
    ran = sweep("sweep.on_error=stop", seeds="0,1,2,3")
    assert cells == [0, 1] and ran.code == 1
    assert "2 of 4 cells were not started" in ran.out and "seed 1 is unlucky" in ran.out
    cells.unlucky = frozenset()
    assert sweep("sweep.on_error=stop", "sweep.retry_failed=true", seeds="0,1,2,3").code == 0
    assert cells == [0, 1, 1, 2, 3]


def test_a_failure_stops_nothing_unless_asked(sweep, cells):
    cells.unlucky = {0}
    assert sweep().code == 2 and cells == [0, 1, 2]


@pytest.mark.slow
def test_a_changed_input_file_is_another_cell(sweep, cells, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a"}\n')
    argv = ["data=jsonl", f"data.path={rows}"]
    sweep(*argv, seeds="0,1")
    sweep(*argv, seeds="0,1")
    assert cells == [0, 1]
    rows.write_text('{"prompt": "another"}\n')
    sweep(*argv, seeds="0,1")
    assert cells == [0, 1, 0, 1]


NAMED = {
    "data": ["data=jsonl", "data.path={}"],
    "pairs": ["pairs.path={}"],
    "margins": ["scored.path={}"],
    "tuning": ["sft=alpaca", "sft.data.path={}"],
    "judge": ["judges=[reward]", "judges.reward.model.path={}"],
    "server": ["judges=[llm]", "endpoint.weights={}"],
    "metric": ["metrics=[perplexity]", "metrics.perplexity.model.path={}"],
    "tasks": ["metrics=[benchmarks]", "metrics.benchmarks.folder={}"],
    "policy": ["mode=score", "mode.policy={}"],
}


@pytest.mark.parametrize("overrides", NAMED.values(), ids=NAMED)
def test_a_change_anywhere_in_a_folder_that_a_config_names_is_another_cell(tmp_path, overrides):
    file = tmp_path / ".cache" / "given" / "part" / "rows.jsonl"
    file.parent.mkdir(parents=True)
    words = [word.format(file.parents[1]) for word in overrides]
    cfg = plan(search_path(conf_dir(), None), words, False).cfg
    digests = [run_status.digest(cfg) for content in ("one", "another") if file.write_text(content)]
    assert len(set(digests)) == 2


@pytest.mark.parametrize("overrides", [["evaluation=sentiment"], ["metrics=[sentiment]"]])
def test_another_release_of_a_metrics_library_is_another_cell(monkeypatch, overrides):
    def digest(release, words):
        monkeypatch.setattr(run_status, "release_of", lambda module: f"{module} {release}")
        return run_status.digest(plan(search_path(conf_dir(), None), words, False).cfg)

    assert digest("3.3", overrides) == digest("3.3", overrides) != digest("3.4", overrides)
    assert digest("3.3", ["metrics=[]"]) == digest("3.4", ["metrics=[]"])
    assert digest("3.3", ["logger=tensorboard"]) == digest("3.4", ["logger=tensorboard"])


def test_a_release_is_that_of_the_distribution_that_brings_a_module():
    assert run_status.release_of("yaml") == version("PyYAML") and run_status.release_of("no_such_module") == ""


def test_a_hidden_folder_among_the_data_decides_nothing(tmp_path):
    git = tmp_path / "part" / ".git" / "deep" / "index"
    git.parent.mkdir(parents=True)
    cfg = plan(search_path(conf_dir(), None), ["data=jsonl", f"data.path={tmp_path}"], False).cfg
    digests = [run_status.digest(cfg) for content in ("one", "another") if git.write_text(content)]
    assert len(set(digests)) == 1


def test_a_single_run_has_no_ledger(run_main, cells):
    run_main(MODE, "name=one")
    run_main(MODE, "name=one")
    assert cells == [0, 0]


def test_the_start_of_a_sweep_leaves_no_file(sweep, cells):
    sweep()
    assert not list(Path.cwd().rglob(run_status.START))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"started": 9e99}',
        '{"name": "a", "status": "failed", "number": "x", "started": 9e99, "code": 1}',
    ],
)
def test_a_broken_or_foreign_status_is_none_of_this_start(tmp_path, content):
    whole = {"name": "b", "status": "done", "number": 0, "started": 0.5, "start": 1.0, "code": 0}
    whole["result"] = None
    for name, text in (("a", content), ("b", json.dumps(whole))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(text)
    assert run_status.of_start(tmp_path, 1.0) == [whole]
    assert run_status.settled(tmp_path / "a", "digest", retry_failed=False) is None
    run_status.begin(tmp_path)
    assert not run_status.stopped(tmp_path)
    run_status.interrupt(tmp_path, 1.0, 130)
    assert (tmp_path / "a" / "status.json").read_text() == content


def test_cells_that_still_run_when_their_launcher_ended_are_lost_unless_they_told_how_they_ended(tmp_path):
    kept = {"name": "c", "started": 1.0, "code": 1, "start": 1.0, "reason": None, "result": None}
    for number, status in enumerate(["running", "done", "running", "running"]):
        cell = {**kept, "number": number, "status": status, "start": 2.0 if number == 3 else 1.0}
        (tmp_path / str(number)).mkdir()
        files.write_checked(tmp_path / str(number) / STATUS, cell)
    run_status.lose(tmp_path, 1.0, [{"number": 2}], "gone")
    found = [run_status.read(tmp_path / str(number) / STATUS) for number in range(4)]
    assert [cell["status"] for cell in found] == ["failed", "done", "running", "running"]
    assert (found[0]["reason"], found[0]["code"], found[0]["again"]) == ("gone", 1, True)
