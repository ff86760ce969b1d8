"""The dashboard as code: it can be built without a login, shows only what runs log, and says what it would build."""

from types import SimpleNamespace

import pytest
import wandb

from dlma.logger import weights_and_biases
from dlma.metrics.summary import METRICS
from dlma.modes import dashboard


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setattr(weights_and_biases, "reachable", lambda *args: pytest.fail("the network was asked"))


def test_without_a_login_it_says_what_it_would_build(run_main):
    ran = run_main("mode=dashboard", "logger.wandb.project=mine", "mode.group=a sweep")
    assert ran.code == 0, ran.err
    assert "no API key" in ran.out and "your-entity/mine, sweep a sweep" in ran.out
    for word in ("Method comparison", "Margin panel", "Samples", "scored_pairs", "eval/aligned/harmful"):
        assert word in ran.out
    assert not (ran.folder / "outputs").exists()


def test_whoever_is_logged_in_without_a_default_entity_is_told_to_name_one(monkeypatch, run_main):
    monkeypatch.setattr(weights_and_biases, "api_key", lambda url: "a key")
    monkeypatch.setattr(weights_and_biases, "reachable", lambda *args: True)
    monkeypatch.setattr(wandb, "Api", lambda: SimpleNamespace(default_entity=None))
    ran = run_main("mode=dashboard")
    assert ran.code == 2 and ran.err == "error: logger.wandb.entity: you have no default entity at W&B: name one\n"


def test_every_panel_is_of_something_that_a_run_logs():
    logged = {f"eval/aligned/{metric.name}" for metric in METRICS} | {"samples", "scored_pairs"}
    logged |= {f"train/{name}" for name in ("reward_margin", "chosen_reward", "rejected_reward", "loss")}
    logged |= {"alerts/unfaithful_reward"}
    assert {m for plots in dashboard.SECTIONS.values() for plot in plots for m in plot.metrics} <= logged


def test_both_are_whole_documents_for_wandb():
    workspace, report = dashboard.build("p", "e", "sweep")
    view = workspace._to_model().model_dump_json(by_alias=True)  # what is sent when saved
    grids = [block for block in report.blocks if hasattr(block, "panels")]
    page = "".join(panel._to_model().model_dump_json(by_alias=True) for grid in grids for panel in grid.panels)
    for plots in dashboard.SECTIONS.values():
        for plot in plots:
            assert all(metric in view and metric in page for metric in plot.metrics), plot
    assert "sweep" in view and all("sweep" in grid.runsets[0].filters for grid in grids)


def test_tables_have_a_line_of_their_own_and_nothing_overlaps():
    _, report = dashboard.build("p", "e", None)
    for grid in (block for block in report.blocks if hasattr(block, "panels")):
        spots = [
            (x, y)
            for panel in grid.panels
            for x in range(panel.layout.x, panel.layout.x + panel.layout.w)
            for y in range(panel.layout.y, panel.layout.y + panel.layout.h)
        ]
        assert len(spots) == len(set(spots)) and max(x for x, _ in spots) < 24
