"""The list of what a run wrote: damage is found by it, and a run writes over no file of others."""

import os

import pytest
from command_line import MODE
from store_kit import spoil

from dlma import files
from dlma.errors import UserError
from dlma.runs import written

NAMES = ["metrics.csv", "policy/model.safetensors"]


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        files.write_bytes(tmp_path / "run" / name, b"content")
    written.note(tmp_path / "run", NAMES)
    return tmp_path / "run"


def swap(path):
    path.rename(path.with_name("old"))
    path.symlink_to("nowhere")


HARM = {
    "a bit": (spoil, "has another content than when it was written"),
    "cut": (lambda path: os.truncate(path, 3), "has 3 bytes, not 7"),
    "gone": (lambda path: path.unlink(), "is missing"),
    "a link": (swap, "is missing"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is missing"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("harm", "words"), HARM.values(), ids=HARM)
def test_damage_to_any_file_is_found_and_said(folder, name, harm, words):
    assert written.damage(folder, NAMES) is None
    harm(folder / name)
    assert written.damage(folder, NAMES) == f"{name} {words}"


def test_a_file_that_was_never_entered_and_an_absent_list_are_damage(folder):
    assert written.damage(folder, ["report.html"]) == "report.html is not in files.json"
    (folder / "files.json").write_text("{")
    assert written.damage(folder, NAMES) == "metrics.csv is not in files.json"


def test_entries_of_another_form_or_place_are_left_out(folder):
    entry = {"sha256": "", "size": 0}
    strange = {"../up": entry, "/top": entry, "": entry, "a/../../b": entry, "metrics.csv": 3, "b": {"size": 0}}
    files.write_json(folder / "files.json", strange)
    assert written.record(folder) == {}


FOREIGN = ["config.yaml", "manifest.json", "status.json", "policy", "report.html", "files.json", "multirun.yaml"]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_folder_with_others_files_in_the_place_of_outputs_is_refused(tmp_path, name):
    (tmp_path / name).write_text('{"name": "my project", "version": "1.0"}')
    with pytest.raises(UserError, match=f"{name}: stands where a run would write"):
        written.refuse_foreign(tmp_path)


@pytest.mark.parametrize("argv", [["hydra.run.dir=mine"], ["-m", "seed=0,1", "hydra.sweep.dir=mine"]])
def test_a_run_writes_over_no_file_of_others(tmp_path, run_main, mode, argv):
    mode(lambda cfg, /: {})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "status.json").write_text("mine")
    ran = run_main(MODE, *argv)
    assert ran.code == 2 and ran.err.count("\n") == 1 and "mine/status.json: stands" in ran.err
    assert [path.read_text() for path in (tmp_path / "mine").iterdir()] == ["mine"]


def test_a_run_goes_on_in_the_folder_of_a_run_or_beside_files_that_it_does_not_write(tmp_path, run_main, mode):
    mode(lambda cfg, /: {})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.md").write_text("mine")
    for _ in range(2):
        assert run_main(MODE, "hydra.run.dir=mine").code == 0
        (tmp_path / "mine" / "report.html").write_text("of the run")
    assert (tmp_path / "mine" / "notes.md").read_text() == "mine"


MARKS = {
    "status.json": {"name": "a", "number": 0, "overrides": [], "started": 1.0, "status": "done"},
    "manifest.json": {"pairs": {"name": "pairs", "key": "k", "version": 1, "values": {}}},
}


@pytest.mark.parametrize("mark", [*MARKS, "files.json"])
def test_the_folder_of_a_sweep_is_known_by_any_mark_of_a_cell(tmp_path, mark):
    """Where one was removed by hand the same command goes on; nothing else is to lie in the cell."""
    cell = tmp_path / "a"
    if mark in MARKS:
        files.write_json(cell / mark, MARKS[mark])
    else:
        files.write_bytes(cell / "metrics.csv", b"content")
        written.note(cell, ["metrics.csv"])
    (tmp_path / "report.html").write_text("")
    written.refuse_foreign(tmp_path)


def test_the_folder_of_a_sweep_is_known_by_its_start(tmp_path):
    files.write_json(tmp_path / "killed" / ".started.json", {"started": 1.0})
    files.write_json(tmp_path / "others" / "a" / "status.json", {"name": "a"})
    for name in ("killed", "others"):
        (tmp_path / name / "multirun.yaml").write_text("")
    written.refuse_foreign(tmp_path / "killed")
    with pytest.raises(UserError, match=r"multirun.yaml"):
        written.refuse_foreign(tmp_path / "others")


@pytest.mark.parametrize(
    ("mode", "overrides", "status", "said"),
    [
        ("run", [], {"mode": "run"}, None),
        ("report", [], {"mode": "run"}, "holds a run"),
        ("agreement", ["seed=3"], {}, "holds a run"),  # written before the mode was noted
        ("run", ["mode=report"], {}, "holds results of mode=report"),
        ("report", ["mode=report"], {}, None),
        ("run", [], {"mode": "agreement"}, "holds results of mode=agreement"),
        (None, [], {"mode": "run"}, "holds a run"),
    ],
)
def test_results_of_another_kind_are_not_written_over(tmp_path, mode, overrides, status, said):
    files.write_json(tmp_path / "mine" / "status.json", {**MARKS["status.json"], "overrides": overrides, **status})
    if said is None:
        written.refuse_other(tmp_path / "mine", mode)
    else:
        with pytest.raises(UserError, match=f"{said}.* name=mine_2"):
            written.refuse_other(tmp_path / "mine", mode)


def test_a_run_does_not_take_the_folder_of_a_sweep_and_a_sweep_does(tmp_path):
    files.write_json(tmp_path / "mine" / "dlma" / "status.json", MARKS["status.json"])
    written.refuse_other(tmp_path / "mine", None)
    with pytest.raises(UserError, match="holds a sweep"):
        written.refuse_other(tmp_path / "mine", "run")


def test_a_report_under_the_name_of_a_run_is_refused_and_the_run_is_whole(run_main, mode, elsewhere):
    mode(lambda cfg, /: {})
    assert run_main(MODE, "name=two").code == 0
    before = {path: path.read_bytes() for path in (elsewhere / "outputs" / "two").iterdir()}
    ran = run_main("mode=report", "runs=outputs/**", "name=two")
    assert ran.code == 2 and "would be lost: name=two_2" in ran.err
    assert {path: path.read_bytes() for path in (elsewhere / "outputs" / "two").iterdir()} == before
