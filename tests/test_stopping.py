"""SIGTERM and Ctrl-C, sent to real processes: what they leave behind, how fast they go, and with which code."""

import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from command_line import MODE

from dlma.stopping import GRACE

ROOT = Path(__file__).parents[1]
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
TO_GO_ON = "interrupted; to go on: python run.py"

# Ways in which a main thread can be occupied. The last ones never come back to Python by themselves, or swallow
# whatever is raised: only the thread that listens can end them.
BUSY = {
    "asleep": "time.sleep(60)",
    "waiting for a thread that sleeps": """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(1)
        pool.submit(time.sleep, 60).result()""",
    "deep in native code": "import hashlib; hashlib.pbkdf2_hmac('sha512', b'a', b'b', 10**9)",
    "swallowing what is raised": """
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                time.sleep(60)
            except:
                pass""",
    "printing to a pipe that nobody reads": "print('x' * 10**7)",
}


def started(tmp_path, busy, *argv, grace=1.0):
    """A process whose mode prints `in` and is then busy; it has `grace` seconds to end by itself."""
    body = textwrap.indent(textwrap.dedent(busy), "    ")
    code = f"import sys, time\nfrom dlma import app, stopping\nfrom dlma.modes import check\nstopping.GRACE = {grace}\n"
    code += f"def show(cfg, /):\n    print('in', flush=True)\n{body}\n"
    code += f"check.show = show\nsys.argv[1:] = {[MODE, *argv]!r}\nsys.exit(app.main())\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs inherit it as ignored
    )  # fmt: skip
    assert process.stdout.readline() == "in\n", process.stderr.read()
    return process


def ended(process, within):
    start = time.monotonic()
    process.wait(30)
    assert time.monotonic() - start < within
    return process.returncode, process.stderr.read()


@pytest.mark.parametrize(
    ("busy", "number"), zip(BUSY, [signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGTERM])
)
def test_a_process_ends_within_seconds_whatever_it_does(tmp_path, busy, number):
    process = started(tmp_path, BUSY[busy], "hydra.run.dir=run", grace=GRACE if "native" in busy else 1.0)
    process.send_signal(number)
    code, err = ended(process, within=5)
    assert code == CODES[number]
    assert err.splitlines()[-1].startswith(TO_GO_ON) and "Traceback" not in err
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["status"], status["code"]) == ("interrupted", CODES[number])


def test_a_second_signal_ends_it_at_once(tmp_path):
    process = started(tmp_path, BUSY["deep in native code"], "hydra.run.dir=run", grace=GRACE)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    code, err = ended(process, within=2)
    assert code == 143 and TO_GO_ON in err
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "interrupted"


def test_a_sweep_stops_with_its_cell_and_starts_no_other(tmp_path):
    process = started(tmp_path, BUSY["deep in native code"], "-m", "seed=0,1,2", "hydra.sweep.dir=sweep")
    process.send_signal(signal.SIGTERM)
    code, err = ended(process, within=5)
    assert code == 143 and TO_GO_ON in err
    (path,) = (tmp_path / "sweep").glob("*/status.json")
    assert json.loads(path.read_text())["status"] == "interrupted"
    left = {path.name for path in (tmp_path / "sweep").iterdir() if path.is_file()}
    assert not left & {"multirun.yaml", ".started.json"}


def test_what_a_parent_ignores_stays_ignored(tmp_path):
    code = (
        "import os, signal\nfrom dlma import stopping\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with stopping.heeded():\n    os.kill(os.getpid(), signal.SIGINT)\nprint('on')"
    )
    ran = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "on\n")


def test_a_forked_child_that_is_ended_does_not_end_its_parent(tmp_path):
    code = (
        # A slow child: the signal is there before it has given up its parent's handlers.
        "import os, signal, time\nos.register_at_fork(after_in_child=lambda: time.sleep(0.5))\n"
        "from dlma import stopping\nstopping.GRACE = 1.0\n"
        "with stopping.heeded():\n"
        "    child = os.fork()\n"
        "    if not child:\n        time.sleep(60)\n"
        "    os.kill(child, signal.SIGTERM)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM\n"
        "    time.sleep(stopping.GRACE + 0.5)\nprint('on')"
    )
    ran = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "on\n")


def test_the_handlers_of_before_come_back(run_main, mode):
    before = [signal.getsignal(number) for number in CODES]
    mode(lambda cfg, /: [signal.signal(number, signal.SIG_IGN) for number in CODES] and {})
    assert run_main(MODE).code == 0
    assert [signal.getsignal(number) for number in CODES] == before
