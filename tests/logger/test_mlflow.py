"""MLflow's own client reads back what the tracker was told; a server that is not there costs a line."""

import json
import logging
import os

import pytest
from tracked import CURVE, SUMMARY, TABLE, holds_secret, record

from dlma.logger.mlflow import MlflowTracker

pytest.importorskip("mlflow")
pytestmark = pytest.mark.slow  # its import takes seconds


def reader(uri):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    place = client.get_experiment_by_name("mine").experiment_id
    return client, client.search_runs([place], order_by=["attributes.start_time"])


def test_two_cells_share_a_folder_and_read_back_whole(tmp_path, monkeypatch):
    uri = f"file:{tmp_path / 'shared'}"
    for code, cell in enumerate(("seed=0", "seed=1")):
        record(MlflowTracker(experiment="mine", uri=uri), tmp_path / cell, cell, exit_code=code)
    client, runs = reader(uri)
    assert {(run.info.run_name, run.info.status) for run in runs} == {("seed=0", "FINISHED"), ("seed=1", "FAILED")}
    for run in runs:
        assert run.data.tags["group"] == "my-sweep"
        assert run.data.params["recipe.lr"] == "0.0001"
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert [(point.step, point.value) for point in history] == CURVE
        assert {name: run.data.metrics[name] for name in SUMMARY} == SUMMARY
        assert set(run.data.metrics) == {"train/loss", *SUMMARY}
        (table,) = (tmp_path / "shared").glob(f"*/{run.info.run_id}/artifacts/samples.json")
        assert json.loads(table.read_text()) == {"columns": TABLE[0], "data": TABLE[1]}
    assert not holds_secret(tmp_path)


def test_a_server_that_does_not_answer_costs_a_line_and_the_run_lies_in_its_folder(tmp_path, caplog, monkeypatch):
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    with caplog.at_level(logging.WARNING, "dlma.logger"):
        record(MlflowTracker(experiment="mine", uri="http://127.0.0.1:9", connect_seconds=1), tmp_path, "one")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "dlma.logger.mlflow"]
    assert line.startswith("MLflow: http://127.0.0.1:9: ") and line.endswith(f"kept in file:{tmp_path / 'mlflow'}")
    _, (run,) = reader(f"file:{tmp_path / 'mlflow'}")
    assert run.data.metrics["train/loss"] == CURVE[-1][1]
