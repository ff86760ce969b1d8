"""A stage killed anywhere ends with the bytes of one that was not; two processes compute a stage once."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

# Each shard's start is printed, so that the killer waits for work to be under way before it strikes.
SCRIPT = """
import sys, time
import pyarrow as pa
from dlma.store import shards
from dlma.store.store import Store

root, pause = sys.argv[1], float(sys.argv[2])
store = Store(root, patience=0.2)
stage = store.stage("pairs", {"seed": 0}, libraries=())

def write(folder):
    print("began", flush=True)
    for index in shards.missing_shards(folder, 40):
        print("shard", index, flush=True)
        rows = [f"{index}-{row}" for row in range(50)]
        time.sleep(pause)
        shards.write_shard(folder, index, pa.table({"id": rows, "ids": [[index] * n for n in range(50)]}))
    shards.merge_shards(folder, 40)

store.make(stage, write)
print("counts", store.counts, stage.table().num_rows, flush=True)
"""


def start(root: Path, pause: float) -> subprocess.Popen:
    words = [sys.executable, "-c", SCRIPT, str(root), str(pause)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> tuple[list[str], str]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.splitlines(), err


def content(root: Path) -> dict[str, bytes]:
    """The files of the finished stages; manifests hold times, locks hold nothing."""
    found = {path.relative_to(root).as_posix(): path for path in root.glob("pairs/**/*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.endswith("manifest.json")}


def test_killed_at_random_points_and_restarted_the_bytes_are_those_of_an_undisturbed_run(tmp_path):
    finish(start(tmp_path / "calm", 0.0))
    chance = random.Random(0)
    begun = []
    for _ in range(4):
        process = start(tmp_path / "killed", 0.01)
        wanted = chance.randint(1, 6)
        shown = [process.stdout.readline() for _ in range(1 + wanted)]
        time.sleep(chance.uniform(0.0, 0.02))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert "counts" not in rest
        begun.append(int(shown[1].removeprefix("shard ")))
    lines, _ = finish(start(tmp_path / "killed", 0.0))
    assert begun == sorted(begun)
    assert begun[0] == 0
    assert begun[-1] > 0, "a restart went on from what was there"
    assert lines[-1] == "counts {'run': {'pairs': 1}, 'reused': {}} 2000"
    assert content(tmp_path / "killed") == content(tmp_path / "calm")
    assert len(content(tmp_path / "calm")) == 1


def test_two_processes_compute_a_stage_once_and_the_second_says_that_it_waits(tmp_path):
    first = start(tmp_path, 0.05)
    assert first.stdout.readline() == "began\n"
    second = start(tmp_path, 0.0)
    waited, notice = finish(second)
    finish(first)
    assert waited == ["counts {'run': {}, 'reused': {'pairs': 1}} 2000"]
    assert "another process" in notice
    assert len(notice.splitlines()) == 1
