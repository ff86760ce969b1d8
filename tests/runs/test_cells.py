"""Run folders are read as they stand: unfinished and unreadable ones have a reason, older ones have defaults."""

import pyarrow.parquet as pq
import pytest
from planted_runs import answers, plant

from dlma.errors import UserError
from dlma.runs import cells as run_folders


def test_patterns_find_runs_sweeps_and_everything_below_once(tmp_path):
    sweep = tmp_path / "outputs" / "sweep"
    one, two = plant(sweep / "a"), plant(sweep / "b", seed=1)
    alone = plant(tmp_path / "outputs" / "alone", seed=2)
    (tmp_path / "outputs" / "empty").mkdir()

    def found(*patterns):
        return [cell.folder for cell in run_folders.collect([str(tmp_path / pattern) for pattern in patterns])]

    assert found("outputs/sweep") == found("outputs/sweep/*") == [one, two]
    assert found("outputs/alone") == [alone]
    assert sorted(found("outputs/**", "outputs/sweep")) == sorted([alone, one, two])
    with pytest.raises(UserError, match=r"runs=.*nowhere: no run folder there"):
        found("outputs/sweep", "nowhere")


def test_a_folder_that_is_there_names_itself_whatever_letters_it_has(tmp_path):
    for name in ("beta=[0,1]", "runs*"):
        folder = plant(tmp_path / name)
        assert [cell.folder for cell in run_folders.collect([str(folder)])] == [folder]


def test_many_folders_with_commas_between_them_are_no_path(tmp_path):
    assert run_folders.paths(",".join([f"outputs/{'x' * 80}"] * 100)) == []


def test_cells_come_in_the_order_of_their_sweep_and_else_of_the_numbers_in_their_names(tmp_path):
    names = ["n=1000,x", "n=250,x", "n=2.5,x", "n=250,a"]
    for i, name in enumerate(names):
        plant(tmp_path / "alone" / name)
        plant(tmp_path / "sweep" / name, status={"number": i})
    assert [cell.name for cell in run_folders.collect([tmp_path / "sweep"])] == names
    alone = [cell.name for cell in run_folders.collect([tmp_path / "alone"])]
    assert alone == ["n=2.5,x", "n=250,a", "n=250,x", "n=1000,x"]


def test_a_report_is_no_cell_of_a_report(tmp_path):
    plant(tmp_path / "a")
    plant(tmp_path / "report", status={"overrides": ["mode=report", "runs=**"]})
    assert [cell.name for cell in run_folders.collect([tmp_path / "*"])] == ["a"]


def test_a_failed_cell_has_its_reason_and_no_answers(tmp_path):
    cell = run_folders.read_cell(plant(tmp_path / "a", status={"status": "failed", "reason": "no space"}))
    assert (cell.status, cell.reason, cell.arms, cell.method) == ("failed", "no space", {}, "dlma")


@pytest.mark.parametrize("name", ["answers.parquet", "config.yaml", "metrics.csv"])
def test_a_done_cell_without_its_files_is_unreadable_and_says_why(tmp_path, name):
    folder = plant(tmp_path / "a")
    (folder / name).unlink()
    cell = run_folders.read_cell(folder)
    assert cell.status == "unreadable" and name in cell.reason and not cell.arms
    (folder / name).write_text("{[")
    assert run_folders.read_cell(folder).status == "unreadable"


@pytest.mark.parametrize(
    "status", [{"overrides": 5}, {"overrides": [5]}, {"overrides": ["seed=x"]}, {"status": ["done"]}, {"started": "x"}]
)
def test_a_status_that_no_run_wrote_is_unreadable(tmp_path, status):
    cell = run_folders.read_cell(plant(tmp_path / "a", status=status))
    assert cell.status != "done" and not cell.arms


def test_numbers_without_a_row_are_unreadable(tmp_path):
    folder = plant(tmp_path / "a")
    (folder / "metrics.csv").write_text("metric\n")
    assert run_folders.read_cell(folder).status == "unreadable"


def test_a_column_that_an_older_run_lacks_has_its_default(tmp_path):
    folder = plant(tmp_path / "a")
    table = pq.read_table(folder / "answers.parquet")
    pq.write_table(table.drop_columns(["malformed"]), folder / "answers.parquet")
    arm = run_folders.read_cell(folder).arms["base"]
    assert "malformed" not in arm.numbers and "harmful" in arm.numbers


def test_an_arm_holds_the_prompts_means_over_their_answers():
    rows = answers("base", 0, prompts=3, harm=0.0)
    twice = [*rows, type(rows[0])(**{**vars(rows[0]), "harmful": True})]
    arm = run_folders.read_arm(twice)
    assert arm.prompts == ("p0", "p1", "p2")
    assert arm.numbers["harmful"][:, 0].tolist() == [0.5, 0.0, 0.0]


@pytest.mark.parametrize(("name", "status"), [("status.json", "unreadable"), ("manifest.json", "done")])
def test_json_nested_too_deep_to_be_read_stops_no_report(tmp_path, name, status):
    folder = plant(tmp_path / "a")
    (folder / name).write_text("[" * 200_000)
    cell = run_folders.read_cell(folder)
    assert cell.status == status


def test_a_manifest_without_notes_tells_nothing_and_stops_no_report(tmp_path):
    from dlma.sweep.settings import settings

    folder = plant(tmp_path / "a")
    (folder / "manifest.json").write_text('{"judge llm": {"values": 3}, "metric x": {"values": {}}}')
    assert [row.label for row in settings([run_folders.read_cell(folder)])] == ["base", "prompted", "dlma"]
