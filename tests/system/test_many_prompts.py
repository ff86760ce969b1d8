"""From prompts to the checks before training, any number of prompts take the memory of few.

Each run is a process with an imposed limit. Its row groups are of 512 rows, so that the fewest prompts are two of them.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_models import byte_level_tokenizer, save_small
from source_tree import ROOT

COUNTS = (1024, 4096, 16384)
MARGIN = 32.0  # MB that a run on more prompts may ask for beyond what the fewest took
FLAT = 1.03  # of the most memory held, the most prompts over the fewest
# What is freed is given back or used again, so that what was asked for tells what was held at once.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def question(number: int) -> str:
    return f"question {number}: how do i {' '.join(f'w{number * k % 97}' for k in range(1, 20))} ?"


def with_prompts(folder: Path, count: int) -> Path:
    """A folder with a small model and so many prompts, written a part at a time."""
    folder.mkdir()
    save_small(folder / "model", tokenizer=byte_level_tokenizer([question(number) for number in range(100)], 400))
    schema = pa.schema([("prompt", pa.string())])
    with pq.ParquetWriter(folder / "prompts.parquet", schema) as out:
        for start in range(0, count, 1024):
            out.write_table(pa.table({"prompt": [question(number) for number in range(start, start + 1024)]}, schema))
    return folder


def ran(folder: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tests" / "kit" / "many_prompts.py"), str(folder), "--group=512", *words]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "kit")])
    return subprocess.run(
        command, env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path}, capture_output=True, text=True
    )


def figures(folder: Path, *words: str) -> dict:
    found = ran(folder, *words)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


def checked_anew(folder: Path) -> Path:
    """The folder without the checks' stage: what comes before it stays."""
    shutil.rmtree(folder / "store" / "preflight")
    return folder


def test_the_memory_of_16_times_the_prompts_is_that_of_one_and_a_list_of_them_breaks_its_limit(tmp_path):
    few, some, many = (with_prompts(tmp_path / str(count), count) for count in COUNTS)
    least = figures(few)
    limit = f"--limit={least['asked'] + MARGIN}"
    runs = [least, figures(some, limit), figures(many, limit)]
    print(runs)
    assert [run["rows"]["prompts"] for run in runs] == list(COUNTS)
    assert all(run["rows"]["scored"] > 0.8 * run["rows"]["prompts"] for run in runs)
    assert max(run["peak"] for run in runs) <= FLAT * least["peak"]
    # The control: the same limit, the rows of all stages in lists. Of few it holds them, of many it does not.
    assert figures(checked_anew(few), limit, "--listed")["listed"] > 4 * 0.8 * COUNTS[0]
    assert figures(checked_anew(many), limit)["listed"] == 0
    broken = ran(checked_anew(many), limit, "--listed")
    assert broken.returncode != 0 and "MemoryError" in broken.stderr, broken.stderr


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'dlma[ray]'")
def test_neither_does_that_of_a_worker_of_a_cluster_nor_of_who_hands_out_its_work(tmp_path):
    words = ("executor=ray", "executor.workers=1")
    least = figures(with_prompts(tmp_path / "few", COUNTS[0]), *words)
    most = figures(with_prompts(tmp_path / "many", COUNTS[-1]), *words, f"--limit={least['asked'] + MARGIN}")
    print(least, most)
    assert len(least["workers"]) == len(most["workers"]) == 1
    assert most["peak"] <= FLAT * least["peak"] and most["workers"][0] <= FLAT * least["workers"][0]
