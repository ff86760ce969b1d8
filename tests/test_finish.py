"""What a run says of itself, on real runs of the lab: alerts that fire where they should, and silence where not."""

import csv
import json

import pytest

from dlma.app import main
from dlma.logger.trackers import CsvTracker


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run on the lab; gives the run folder and the tracker's summary numbers."""
    monkeypatch.chdir(tmp_path)
    summary = {}
    monkeypatch.setattr(CsvTracker, "finish", lambda self, numbers, exit_code=0: summary.update(numbers))

    def call(*overrides):
        assert main(["name=here", *overrides]) == 0
        return tmp_path / "outputs" / "here", summary

    return call


def alerts(folder):
    return json.loads((folder / "status.json").read_text())["result"]["alerts"]


def rows(path, key):
    return {row[key]: row for row in csv.DictReader(path.open())}


@pytest.mark.slow
def test_independent_judges_follow_the_run_along_training(run):
    sizes = ["data.train=24", "data.validation=4", "data.test=6", "recipe.max_new_tokens=48", "recipe.batch_pairs=8"]
    folder, _ = run("intermediate=1", *sizes)
    curve, metrics = rows(folder / "trajectory.csv", "step"), rows(folder / "metrics.csv", "metric")
    assert len(curve) == 3 and curve["0"]["win_rate/oracle_harmless"] == "0.5"
    assert curve["6"]["win_rate/oracle_harmless"] == metrics["aligned/win_rate/oracle_harmless/base"]["mean"]
    assert 0 <= float(curve["3"]["win_rate/oracle_harmless"]) <= 1
    assert "win rate by oracle_harmless" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_on_the_confounded_base_the_reward_is_named_as_unfaithful_everywhere(run, capsys):
    folder, summary = run(
        "model.base=confounded", "data.train=1200", "data.validation=4", "data.test=60", "recipe.epochs=1"
    )
    assert "unfaithful_reward" in alerts(folder)
    assert summary["alerts/unfaithful_reward"] == 1.0
    out = capsys.readouterr().out
    assert "unfaithful_reward: on lab-confounded" in out and "low_contrast" not in out
    assert "unfaithful_reward: on lab-confounded" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_healthy_run_on_the_standard_base_fires_nothing(run):
    folder, summary = run("data.train=800", "data.validation=4", "data.test=500")
    assert alerts(folder) == []
    assert {value for name, value in summary.items() if name.startswith("alerts/")} == {0.0}
    assert summary["score/echo_share"] < 0.5
    page = (folder / "report.html").read_text()
    assert "R token by token" in page and page.count("data-veil") >= 6
