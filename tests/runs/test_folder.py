"""A run folder is read as its run wrote it: what was damaged since is one line that names the file."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted_runs import plant
from store_kit import spoil

from dlma import files
from dlma.errors import UserError
from dlma.runs import cells, written
from dlma.runs import status as run_status
from dlma.runs.folder import RunFolder

READ = {
    "config.yaml": lambda run: run.recorded,
    "manifest.json": RunFolder.manifest,
    "metrics.csv": RunFolder.metrics,
    "answers.parquet": RunFolder.answers,
    "policy": lambda run: run.sound("policy"),
    "status.json": RunFolder.status,
    "files.json": lambda run: run.recorded,
}
WRITTEN = ["config.yaml", "manifest.json", "metrics.csv", "answers.parquet", "policy/model.safetensors"]


@pytest.fixture
def folder(tmp_path):
    """A finished run's folder, whose files are entered."""
    folder = plant(tmp_path / "run", prompts=4)
    (folder / "policy").mkdir()
    (folder / "policy" / "model.safetensors").write_bytes(b"weights")
    files.write_checked(folder / "status.json", files.read_json(folder / "status.json"))
    written.note(folder, WRITTEN)
    return folder


@pytest.mark.parametrize("name", READ)
def test_a_damaged_file_is_one_line_that_names_it(folder, name):
    assert READ[name](RunFolder(folder)) is not None
    path = folder / name
    spoil(path / "model.safetensors" if path.is_dir() else path, at=1)
    with pytest.raises(UserError) as reason:
        READ[name](RunFolder(folder))
    assert str(reason.value).startswith(f"{path}") and "run its command again" in str(reason.value)
    assert "\n" not in str(reason.value)


@pytest.mark.parametrize("name", ["status.json", "files.json"])
def test_every_byte_of_what_says_how_a_run_stands_counts(folder, name):
    path = folder / name
    data = path.read_bytes()
    assert run_status.read(folder / "status.json") and written.damage(folder, WRITTEN) is None
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        assert files.read_checked(path) == {}, data[at - 9 : at + 9]
    assert run_status.read(folder / "status.json") is None or written.damage(folder, WRITTEN)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "answers.parquet", "status.json", "files.json"])
def test_a_report_leaves_a_damaged_run_out_and_names_the_file(folder, name):
    assert cells.read_cell(folder).status == "done"
    spoil(folder / name)
    found = cells.read_cell(folder)
    assert (found.status, found.arms) == ("unreadable", {}) and str(folder / name) in found.reason


def test_a_folder_without_a_list_is_read_as_it_stands(folder):
    spoil(folder / "policy" / "model.safetensors")
    (folder / "files.json").unlink()
    (folder / "status.json").write_text(json.dumps({"status": "done"}))
    run = RunFolder(folder)
    assert run.status() == {"status": "done"} and run.sound("policy").is_dir() and run.recorded.values["seed"] == 0


FOREIGN = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "of another form": lambda path: _others(path),
    "nested too deeply": lambda path: path.write_bytes(b"[" * 200_000),
    "of other bytes": lambda path: path.write_bytes(b"\xff\xfe\x00\x01"),
}


def _others(path):
    if path.suffix == ".parquet":
        return pq.write_table(pa.table({"a": [1]}), path)
    return path.write_text('{"a": 1}' if path.suffix == ".json" else "a,b\n1,2\n")


@pytest.mark.parametrize("harm", FOREIGN)
@pytest.mark.parametrize("name", ["manifest.json", "metrics.csv", "answers.parquet", "prompts.parquet"])
def test_a_damaged_file_that_no_list_holds_is_one_line_too(folder, name, harm):
    (folder / "files.json").unlink()
    read = {**READ, "prompts.parquet": RunFolder.prompts, "metrics.csv": RunFolder.about}[name]
    assert read(RunFolder(folder)) is not None
    FOREIGN[harm](folder / name)
    with pytest.raises(UserError) as reason:
        read(RunFolder(folder))
    assert str(reason.value).startswith(f"{folder / name}: ") and "\n" not in str(reason.value)


def test_what_is_gone_altogether_is_for_the_reader_to_say(folder):
    (folder / "metrics.csv").unlink()
    assert RunFolder(folder).missing == "metrics.csv"
    assert RunFolder(folder).sound("metrics.csv") == folder / "metrics.csv"
