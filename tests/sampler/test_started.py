"""A server that is started for a stage: it is waited for, started again, and never left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from small_models import small_model
from source_tree import ROOT

from dlma.errors import UserError
from dlma.functional.noise import row_key
from dlma.http_client import Client, Fault
from dlma.sampler import started
from dlma.sampler.local import Request
from dlma.sampler.server import ServerSampler, Weights
from dlma.sampler.started import StartedServer
from dlma.trainer.ranks import Ranks

QUICK = ROOT / "tests" / "kit" / "quick_server.py"


def command(fault, log=None):
    more = "" if log is None else f" --log {log}"
    return f"{sys.executable} -ES {QUICK} --model {{model}} --port {{port}} --as {fault}{more}"


def server(fault, *, patience=20.0, log=None, ready=lambda url: None):
    client = Client(key_variable=None, needs_key=False, option="o", timeout=2.0)
    line = fault if " " in fault else command(fault, log)
    return StartedServer(line, Path("the model"), Path("server.log"), ready, client=client, patience=patience)


def group_of(process):
    return [one for one in psutil.process_iter() if _in_group(one, process)]


def _in_group(one, group):
    try:
        return os.getpgid(one.pid) == group and one.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def gone(group, within=8.0):
    until = time.monotonic() + within
    while group_of(group) and time.monotonic() < until:
        time.sleep(0.05)
    return not group_of(group)


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(started, "_LOOK", 0.02)


@pytest.mark.parametrize("fault", ["well", pytest.param("plain", marks=pytest.mark.slow)])
def test_it_answers_in_the_block_with_the_folder_it_was_given_and_is_gone_after_it(fault):
    told = []
    with server(fault, ready=told.append) as one:
        (entry,) = one.client.ask(f"{one.url}/models")["data"]
        group = one._process.pid
        assert entry["id"] == "the model" and told == [one.url] and group_of(group)
    assert gone(group, 0.0)


@pytest.mark.slow
def test_what_it_says_is_in_the_log_without_secrets(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "planted-value-1")
    with server("well"):
        pass
    text = Path("server.log").read_text()
    assert "--port" in text and "secret is <redacted>" in text and "planted-value-1" not in text


def test_a_server_that_does_not_heed_sigterm_is_ended_with_all_of_its_group(monkeypatch):
    monkeypatch.setattr(started, "GRACE", 0.3)
    with server("deaf") as one:
        group = one._process.pid
        assert len(group_of(group)) == 2
    assert gone(group, 1.0)


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        ("exits", r"ended before it answered: no such weights \(.*server.log\)"),
        pytest.param("hangs", r"does not answer 0\.7 s after its start", marks=pytest.mark.slow),
        ("unhealthy", r"does not answer 0\.7 s after its start \(sampler\.start_timeout\)"),
        ("/nowhere/serve {model} {port}", "/nowhere/serve: cannot be started: No such file"),
    ],
)
def test_one_that_does_not_come_up_is_told_in_a_line_and_ended(fault, wanted):
    patience = 0.7 if fault in ("hangs", "unhealthy") else 20.0
    with pytest.raises(UserError, match=wanted), server(fault, patience=patience, log="starts"):
        pytest.fail("it did not come up")
    for line in Path("starts").read_text().splitlines() if Path("starts").is_file() else []:
        assert gone(int(line.split()[0]), 1.0)


@pytest.mark.slow
def test_another_port_is_tried_where_somebody_was_quicker(monkeypatch):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        taken = held.getsockname()[1]
        free = started._free_port
        ports = iter([taken])
        monkeypatch.setattr(started, "_free_port", lambda: next(ports, None) or free())
        with server("well", log="starts") as one:
            assert one.port != taken
    assert [int(line.split()[1]) for line in Path("starts").read_text().splitlines()] == [taken, one.port]


@pytest.mark.slow
def test_one_that_ended_is_started_again_at_the_same_port_and_made_ready_again():
    told = []
    with server("well", ready=told.append) as one:
        one.revive()
        assert len(told) == 1
        os.killpg(one._process.pid, signal.SIGKILL)
        one._process.wait()
        one.revive()
        assert told == [one.url] * 2 and one._process.poll() is None
        group = one._process.pid
    assert gone(group, 0.0)


@pytest.mark.slow
def test_one_that_ends_again_and_again_is_given_up(monkeypatch):
    monkeypatch.setattr(started, "STARTS", 2)
    with pytest.raises(UserError, match="ended 2 times in one stage"), server("well") as one:
        for _ in range(2):
            os.killpg(one._process.pid, signal.SIGKILL)
            one._process.wait()
            one.revive()


CHILD = """
import os, time
from pathlib import Path
from dlma import stopping
from dlma.http_client import Client
from dlma.sampler.started import StartedServer
client = Client(key_variable=None, needs_key=False, option="o", timeout=2.0)
one = StartedServer({line!r}, Path("m"), Path("log"), lambda url: None, client=client, patience=20.0)
with stopping.heeded(), one:
    print(one._process.pid, flush=True)
    {then}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "then"),
    [
        (signal.SIGTERM, "time.sleep(60)"),
        (signal.SIGINT, "time.sleep(60)"),
        (signal.SIGKILL, "time.sleep(60)"),
        (None, "raise RuntimeError"),
        (None, "os._exit(1)"),
    ],
)
def test_it_is_not_left_behind_whatever_ends_the_run(how, then):
    code = CHILD.format(line=command("well"), then=then)
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=own
    )
    group = int(run.stdout.readline())
    if how is not None:
        run.send_signal(how)
    assert run.wait(20) != 0 and gone(group)


@pytest.fixture(scope="module")
def model():
    return small_model(vocabulary=40)


def requests(n):
    return [Request(row_key(0, f"p{i}", "plain", 0), [0, 5, 4], id=f"p{i}") for i in range(n)]


def sampler(**options):
    numbers = dict(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=4)
    return ServerSampler(**numbers, served=None, extra={}, first_wait=0.01, timeout=20.0, **options)


@pytest.mark.parametrize("adapter", [pytest.param(None, marks=pytest.mark.slow), Path("adapter")])
def test_a_server_that_dies_in_mid_stage_is_started_again_and_no_answer_is_lost(model, capsys, adapter):
    rows = requests(10)  # it dies at each seventh; its adapter is loaded again
    ours = sampler(start=command("dies", "starts"), in_flight=1)
    with ours.serving(Weights(Path("m"), adapter, held=False), Path("server.log"), Ranks()) as one:
        answers = one.sample(model, rows)
        assert one.report()["servers"] == 1
    assert [answer.ids for answer in answers] == [[3 + row.key % 2**31 % 30, 1] for row in rows]
    groups = [int(line.split()[0]) for line in Path("starts").read_text().splitlines()]
    assert len(groups) == 2 and all(gone(group, 0.0) for group in groups)
    assert "ended (exit code 3); it is started again" in capsys.readouterr().err


@pytest.mark.slow
def test_the_end_of_the_block_does_not_wait_for_one_that_comes_up_again():
    with server("once", log="starts", patience=60.0) as one:
        os.killpg(one._process.pid, signal.SIGKILL)
        one._process.wait()
        with ThreadPoolExecutor(1) as pool:
            revived = pool.submit(one.revive)
            while len(Path("starts").read_text().splitlines()) < 2:
                time.sleep(0.02)
            one.__exit__()
            with pytest.raises(Fault, match="stopped"):
                revived.result(5)
    for line in Path("starts").read_text().splitlines():
        assert gone(int(line.split()[0]), 0.0)
