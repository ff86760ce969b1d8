"""Runs of the built-in lab, stopped by a signal: in each stage, with several processes, with cells side by side."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
# What stderr shows once a stage is under way: the label of its progress bar, not yet at its end.
STAGES = {
    "loading": None,
    "sampling": r" pairs: ",
    "scoring": r" scores: ",
    "training": r" train: .* [1-9][\d.k]*/",
    "answers": r" (base|prompted|aligned): ",
    "judging": r"ASKED",
}
OPTIONS = ["data.train=600", "data.test=200", "trainer.shard_rows=32", "judges=[llm]"]


class Refusing(BaseHTTPRequestHandler):
    """A server of judges that always asks to come back in half a minute."""

    def log_message(self, *args):
        pass

    def do_POST(self):
        self.server.asked.set()
        self.send_response(503)
        self.send_header("Retry-After", "30")
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def judges():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    server.asked = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def reached(process, marker, judges):
    """Read stderr until the stage is under way."""
    text = ""
    while marker != "ASKED" and not re.search(marker, text):
        part = os.read(process.stderr.fileno(), 4096).decode(errors="replace")
        assert part, text
        text = (text + part)[-4000:]
    if marker == "ASKED":
        threading.Thread(target=process.stderr.read, daemon=True).start()
        assert judges.asked.wait(600)


def started(tmp_path, judges, *argv):
    endpoint = ["endpoint.model=m", f"endpoint.base_url=http://127.0.0.1:{judges.server_address[1]}/v1"]
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *OPTIONS, *endpoint, *argv], cwd=tmp_path, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def ended(process, number):
    """Send a signal; the exit code, and the seconds until this process and all its children are gone."""
    family = psutil.Process(process.pid).children(recursive=True)
    start = time.monotonic()
    process.send_signal(number)
    process.wait(30)
    psutil.wait_procs(family, timeout=30)
    return process.returncode, time.monotonic() - start


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)


def status(tmp_path):
    path = tmp_path / "run" / "status.json"
    return json.loads(path.read_text()) if path.is_file() else {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_stage_stops_within_5_seconds_and_the_next_start_goes_on(tmp_path, judges):
    done: set[str] = set()
    for number, (stage, marker) in enumerate(STAGES.items()):
        (tmp_path / "run" / "status.json").unlink(missing_ok=True)
        sent = list(CODES)[number % 2]
        process = started(tmp_path, judges, "hydra.run.dir=run")
        if marker is None:
            wait_for(lambda: status(tmp_path).get("status") == "running", process)
            time.sleep(2)
        else:
            reached(process, marker, judges)
        code, seconds = ended(process, sent)
        print(f"{stage}: {sent.name}, exit code {code} after {seconds:.1f} s", flush=True)
        assert (code, status(tmp_path)["status"], status(tmp_path)["code"]) == (CODES[sent], "interrupted", CODES[sent])
        assert seconds < 5, stage
        manifests = {str(path.parent) for path in (tmp_path / "store").glob("*/*/manifest.json")}
        assert done <= manifests
        done = manifests


@pytest.mark.slow
def test_several_processes_end_together(tmp_path, judges):
    process = started(
        tmp_path, judges, "hydra.run.dir=run", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"
    )
    reached(process, r" pairs: .* [1-9]", judges)
    assert len(psutil.Process(process.pid).children()) >= 2
    code, seconds = ended(process, signal.SIGTERM)
    print(f"two processes: exit code {code} after {seconds:.1f} s", flush=True)
    assert (code, status(tmp_path)["status"]) == (143, "interrupted") and seconds < 5


@pytest.mark.slow
def test_cells_side_by_side_end_with_their_sweep(tmp_path, judges):
    cells = ["-m", "seed=0,1,2", "hydra.sweep.dir=sweep", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    process = started(tmp_path, judges, *cells)
    threading.Thread(target=process.stderr.read, daemon=True).start()
    wait_for(lambda: len(list((tmp_path / "sweep").glob("*/status.json"))) == 2, process)
    time.sleep(3)
    code, seconds = ended(process, signal.SIGTERM)
    print(f"two cells: exit code {code} after {seconds:.1f} s", flush=True)
    found = [json.loads(path.read_text())["status"] for path in (tmp_path / "sweep").glob("*/status.json")]
    assert (code, found) == (143, ["interrupted"] * 2) and seconds < 5
