"""The text on adding a method is done, word for word, in a copy of the package, and the method is then in the table."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "own_method.md").read_text()
SMALL = ["data.train=16", "data.validation=4", "data.test=4", "recipe.epochs=1", "recipe.max_new_tokens=32"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the package and its config with the two files of the text, at the places that it names."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("dlma", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", folder)
    found = re.findall(r"`((?:dlma|conf)/[\w/]+\.(?:py|yaml))`:\n\n```\w+\n(.*?)```", TEXT, re.S)
    assert [Path(name).suffix for name, _ in found] == [".py", ".yaml"]
    for name, text in found:
        assert not (folder / name).exists()
        (folder / name).write_text(text)
    return folder


def run(checkout, words):
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, *words]
    return subprocess.run(argv, cwd=checkout, env=environment, capture_output=True, text=True, timeout=300)


def commands():
    (block,) = re.findall(r"```bash\n(.*?)```", TEXT, re.S)
    return [shlex.split(line)[1:] for line in block.splitlines()]


def test_one_file_and_one_yaml_add_a_method(checkout):
    check, sweep = commands()
    checked = run(checkout, check)
    assert checked.returncode == 0 and "config ok" in checked.stdout, checked.stderr
    ran = run(checkout, [*(word.replace("seed=0,1,2", "seed=0") for word in sweep), *SMALL])
    assert ran.returncode == 0, ran.stderr
    (results,) = checkout.glob("outputs/*/results.csv")
    rows = list(csv.DictReader(results.open()))
    assert {row["method"] for row in rows} == {"base", "prompted", "rlaif", "shorter"}
    assert any((row["method"], row["metric"], row["versus"]) == ("shorter", "harmful", "rlaif") for row in rows)
    (cell,) = checkout.glob("outputs/*/shorter*/scored.parquet")
    for row in pq.read_table(cell).to_pylist():
        shorter = "positive" if len(row["positive_ids"]) <= len(row["negative_ids"]) else "negative"
        assert row["chosen"] == shorter
    (other,) = checkout.glob("outputs/*/rlaif*/pairs.parquet")
    assert pq.read_table(other).equals(pq.read_table(cell.with_name("pairs.parquet")))
