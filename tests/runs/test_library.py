"""The runs below a folder: which are found, which are left out with a line, and that little of each is read."""

import errno
import json
import os
import shutil

import pyarrow.parquet as pq
import pytest
from planted_runs import plant

from dlma.runs.library import Library, run_folders


@pytest.fixture
def outputs(elsewhere):
    plant(elsewhere / "outputs" / "one", prompts=3, status={"started": 5.0, "result": {"alerts": ["length_drift"]}})
    for name, seed in (("dlma,seed=0", 0), ("dlma,seed=1", 1)):
        plant(elsewhere / "outputs" / "sweep" / name, prompts=3, seed=seed, status={"started": 9.0 + seed})
    return elsewhere / "outputs"


def test_runs_and_cells_of_sweeps_are_found_the_last_started_first(outputs):
    (outputs / "sweep" / "report.html").write_text("no run")
    (outputs / ".hidden").mkdir()
    plant(outputs / "one" / "inside", prompts=3)  # what lies in a run is the run's
    runs, skipped = Library(outputs).look()
    assert [run.name for run in runs] == ["sweep/dlma,seed=1", "sweep/dlma,seed=0", "one"] and skipped == []
    assert [(run.method, run.base, run.seed) for run in runs] == [("dlma", "lab-standard", s) for s in ("1", "0", "0")]
    assert runs[2].alerts == ("length_drift",) and len({run.id for run in runs}) == 3
    assert [run.name for run in Library(outputs / "one").look()[0]] == ["one"]


def test_the_figures_are_those_of_metrics_csv(outputs):
    (run,) = [run for run in Library(outputs).look()[0] if run.name == "one"]
    lines = (outputs / "one" / "metrics.csv").read_text().splitlines()
    (line,) = [line.split(",") for line in lines if ",aligned/kl," in line]
    found = run.estimate("kl", run.arm)
    assert [str(value) for value in (found.n, found.value, found.low, found.high)] == line[4:]
    assert run.estimate("kl", "nobody") is None


BREAKING = {
    "running": lambda f: (f / "status.json").write_text(json.dumps({"status": "running"})),
    "failed": lambda f: (f / "status.json").write_text(json.dumps({"status": "failed"})),
    "status": lambda f: (f / "status.json").write_text("{"),
    "no metrics": lambda f: (f / "metrics.csv").unlink(),
    "empty metrics": lambda f: (f / "metrics.csv").write_text(""),
    "foreign metrics": lambda f: (f / "metrics.csv").write_text("a,b\n1,2\n"),
    "binary metrics": lambda f: (f / "metrics.csv").write_bytes(b"\xff\xfe\x00"),
    "no config": lambda f: (f / "config.yaml").unlink(),
    "half of the answers": lambda f: (f / "answers.parquet").write_bytes((f / "answers.parquet").read_bytes()[:400]),
    "no answers": lambda f: (f / "answers.parquet").write_bytes(b""),
    "another list": lambda f: (f / "files.json").write_text('{"metrics.csv": 3}'),
    "alerts": lambda f: (f / "status.json").write_text(json.dumps({"status": "done", "result": {"alerts": 3}})),
}


@pytest.mark.parametrize("broken", BREAKING)
def test_a_run_that_is_broken_or_half_written_is_left_out_with_a_line(outputs, broken):
    BREAKING[broken](outputs / "one")
    runs, skipped = Library(outputs).look()
    assert len(runs) == 2
    (line,) = skipped
    assert line.startswith("one: left out: ") and "\n" not in line and len(line) > len("one: left out: ")


def test_looking_again_reads_what_changed_and_drops_what_is_gone(outputs, monkeypatch):
    library = Library(outputs)
    (first, *_), _ = library.look()
    read = []
    monkeypatch.setattr(pq, "read_metadata", lambda path: read.append(path.parent.name))
    assert library.look()[0][0] is first and read == []
    shutil.rmtree(outputs / "sweep" / "dlma,seed=1")
    plant(outputs / "two", prompts=4)
    assert {run.name for run in library.look()[0]} == {"sweep/dlma,seed=0", "one", "two"} and read == ["two"]
    assert library.run(first.id) is None and library.run("../one") is None


def test_a_folder_that_may_not_be_read_is_a_line(outputs, monkeypatch):
    (outputs / "closed").mkdir()
    whole = os.scandir
    refused = PermissionError(errno.EACCES, "Permission denied")

    def scandir(path):
        if path.name == "closed":
            raise refused
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)
    runs, skipped = Library(outputs).look()
    assert len(runs) == 3 and len(skipped) == 1 and skipped[0].startswith("closed: left out: ")


def test_folders_are_looked_through_to_a_depth(elsewhere):
    plant(elsewhere / "a" / "b" / "c" / "d", prompts=2)
    assert list(run_folders(elsewhere)) == []
    assert list(run_folders(elsewhere / "a")) == [elsewhere / "a" / "b" / "c" / "d"]
