"""Processes that work together hear what the first decides, and of an error in any of them, with its reason."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dlma.store.store import Store
from dlma.trainer.ranks import Ranks

pytestmark = pytest.mark.timeout(600)
WORKER = Path(__file__).parents[1] / "kit" / "ranks_worker.py"


ENDS = ["mistaken 0", "mistaken 1", "at-fault 0", "at-fault 1", "silent 1", "silent-beside-a-busy 1"]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What two processes leave of each thing that they do: said[what][number], nothing of one that was killed."""
    folder = tmp_path_factory.mktemp("ranks")
    shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1"}
    things = ["stages", *ENDS]
    command = [sys.executable, str(WORKER), str(folder), str(free_ports(len(things))), *things]
    started = []
    for number in range(2):
        own = shared | {"RANK": number, "LOCAL_RANK": number, "TORCH_CPP_LOG_LEVEL": "ERROR"}
        started.append(subprocess.Popen(command, env=os.environ | {name: str(value) for name, value in own.items()}))
    assert [process.wait(500) for process in started] == [0, 0]
    paths = {what: [folder / f"{what}.{number}.json" for number in range(2)] for what in things}
    return {what: [json.loads(p.read_text()) if p.is_file() else None for p in two] for what, two in paths.items()}


def free_ports(count):
    """The first of so many ports in a row."""
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        if port + count < 65_536:
            return port


def test_a_process_by_itself_makes_what_it_is_asked_for(tmp_path):
    alone, store = Ranks(), Store(tmp_path)
    assert (alone.number, alone.count, alone.same(lambda: 3), alone.first(lambda: 4)) == (0, 1, 3, 4)
    stage = alone.make(store, store.stage("pairs", {}), lambda folder: {"here": True}, config={}, together=True)
    assert stage.notes == {"here": True}


@pytest.mark.slow
def test_a_stage_is_made_by_both_or_by_the_first_and_found_by_both(said):
    together, alone = ["by 0", ["0.txt", "1.txt"]], ["by 0", ["0.txt"]]
    assert [one["made"] for one in said["stages"]] == [[together, alone, together]] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "kind", "text"), [("mistaken", "UserError", "data.path: has gone"), ("at-fault", "RuntimeError", "by 0")]
)
def test_an_error_in_one_process_is_the_error_of_both(said, how, kind, text):
    for who in (0, 1):
        own, other = said[f"{how} {who}"][who], said[f"{how} {who}"][1 - who]
        assert own["text"] == text and other["text"].startswith(f"process {who} of the run ended: ")
        assert own["seconds"] < 20 and other["seconds"] < 20
    assert other["kind"] == kind and text in other["text"]


@pytest.mark.slow
@pytest.mark.parametrize(("what", "left"), [("silent 1", {"kind": "Unavailable"}), ("silent-beside-a-busy 1", {})])
def test_a_process_that_is_killed_ends_the_other_while_it_waits_and_while_it_is_busy(said, what, left):
    first, killed = said[what]
    reason = "process 1 of the run ended: nothing was heard of it for 4 s"
    assert killed is None and first.pop("seconds") < 20
    assert first == (left | {"text": reason} if left else {"words": [2, reason]})
