"""Trackers: an offline run reads back whole, an online one never prompts, never hangs, never tells a secret."""

import json
import logging
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
from tracked import record

from dlma.logger import weights_and_biases as wandb_tracker
from dlma.logger.weights_and_biases import WandbTracker

KEY = "a" * 40


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch, tmp_path):
    """No key, no netrc, no server of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture
def server():
    """A local server that answers every request with a status, or not at all (status None)."""
    started, release = [], Event()

    def start(status: int | None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if status is None:
                    release.wait(30)
                    return
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_GET

            def log_message(self, *args):
                pass

        started.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=started[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{started[-1].server_port}"

    yield start
    release.set()
    for one in started:
        one.shutdown()


def _inspect(folder: Path, *options: str) -> str:
    (path,) = folder.glob("wandb/*run-*/*.wandb")
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", *options, "--json", path]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_two_offline_cells_read_back_with_config_curve_table_and_summary(tmp_path, capfd):
    for cell in ("seed=0", "seed=1"):
        record(WandbTracker(project="proj"), tmp_path / cell, cell)
    out, err = capfd.readouterr()
    assert out == "" and err == ""
    records = [json.loads(line) for line in _inspect(tmp_path / "seed=1").splitlines()]
    by_type = {kind: [r[kind] for r in records if r["type"] == kind] for kind in ("run", "history", "metric")}
    (run,) = by_type["run"]
    assert (run["display_name"], run["run_group"], run["project"]) == ("seed=1", "my-sweep", "proj")
    assert run["config"]["update"]["recipe"] == {"lr": 1e-4, "lora": None}
    rows = [row["item"] for row in by_type["history"]]
    curve = [(row["train/step"], row["train/loss"]) for row in rows if "train/loss" in row]
    assert curve == [(0, 1.0), (10, 0.9), (20, 0.8)]
    assert {"name": "train/*", "step": "train/step"} in [
        {"name": m.get("glob_name"), "step": m.get("step_metric")} for m in by_type["metric"]
    ]
    assert any(row.get("samples.nrows") == 2 for row in rows)
    (table,) = (tmp_path / "seed=1").glob("wandb/*run-*/files/media/table/samples_*.json")
    assert json.loads(table.read_text())["data"] == [["<b>q</b>", "a"], ["q2", None]]
    artifact = records[[r["type"] for r in records].index("artifact")]["artifact"]
    staged = [Path(entry["local_path"]) for entry in artifact["manifest"]["contents"]]
    assert staged and all(path.is_relative_to(tmp_path) and path.is_file() for path in staged)


def test_no_file_of_an_offline_run_holds_a_secret_and_the_summary_is_there(tmp_path):
    record(WandbTracker(), tmp_path, "one")
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files and not any(b"planted-secret-value" in path.read_bytes() for path in files)
    summary = json.loads(_inspect(tmp_path, "--summary"))
    assert summary["summary"]["eval/aligned/harmful"] == 0.25
    assert (summary["state"], summary["exit_code"]) == ("finished", 0)


def _lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("dlma.logger")]


def _is_offline(folder: Path) -> bool:
    return any(folder.glob("wandb/offline-run-*"))


def test_online_without_a_key_goes_offline_with_a_line_and_asks_nothing(tmp_path, caplog, monkeypatch):
    def refuse(*_):
        raise AssertionError("asked")

    for prompt in ("builtins.input", "getpass.getpass", "click.prompt"):
        monkeypatch.setattr(prompt, refuse)
    with caplog.at_level(logging.WARNING, "dlma.logger"):
        record(WandbTracker(mode="online"), tmp_path, "one")
    assert _is_offline(tmp_path)
    (line,) = _lines(caplog)
    assert "no API key" in line and str(tmp_path) in line


@pytest.mark.parametrize("status", [None, 401])
def test_online_with_a_silent_or_refusing_server_goes_offline_in_time(tmp_path, caplog, monkeypatch, server, status):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server(status))
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "dlma.logger"):
        record(WandbTracker(mode="online", connect_seconds=1.0), tmp_path, "one")
    assert time.monotonic() - began < 10
    assert _is_offline(tmp_path)
    assert len(_lines(caplog)) == 1 and KEY not in caplog.text


def test_reachable_means_that_somebody_answers_whatever_the_answer(server):
    assert wandb_tracker.reachable(server(500), 2)
    began = time.monotonic()
    assert not wandb_tracker.reachable(server(None), 0.3)
    assert time.monotonic() - began < 2
    assert not wandb_tracker.reachable("http://127.0.0.1:1", 1)
    assert not wandb_tracker.reachable("not an address", 1)


def test_the_key_comes_from_the_environment_or_the_servers_netrc_entry(tmp_path, monkeypatch):
    assert wandb_tracker.api_key("https://w.example") is None
    netrc = tmp_path / "netrc"
    netrc.write_text("machine w.example login user password from-netrc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert wandb_tracker.api_key("https://w.example") == "from-netrc"
    assert wandb_tracker.api_key("https://other.example") is None
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert wandb_tracker.api_key("https://other.example") == KEY


def test_a_failing_tracker_costs_lines_and_not_the_run(tmp_path, caplog):
    class Broken:
        def __getattr__(self, name):
            raise ConnectionError("the service is gone")

    tracker = WandbTracker(mode="disabled")
    tracker.start(tmp_path, "one", None, {})
    tracker._run = Broken()
    with caplog.at_level(logging.WARNING, "dlma.logger"):
        tracker.log({"train/step": 1, "train/loss": 2.0})
        tracker.table("samples", ["a"], [["b"]])
        tracker.finish({})
    assert [line.split(" is left out")[0] for line in _lines(caplog)] == [
        "W&B: a row",
        "W&B: the table samples",
        "W&B: the summary",
    ]


def test_a_start_that_fails_costs_a_line_and_not_the_run(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "dlma.logger"):
        record(WandbTracker(project="team/dlma"), tmp_path / "off", "one")
    (line,) = _lines(caplog)
    assert line.startswith("W&B: ") and "team/dlma" in line and line.endswith("nothing of this run is kept there")


def test_disabled_writes_nothing(tmp_path):
    record(WandbTracker(mode="disabled"), tmp_path / "off", "one")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_importing_the_trackers_does_not_import_wandb():
    code = "import sys, dlma.logger.weights_and_biases; sys.exit('wandb' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
