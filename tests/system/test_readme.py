"""Every command of the README is accepted as it stands there, and its Python runs."""

import gzip
import json
import re
import shlex
from pathlib import Path

import pytest
from small_models import save_small

from dlma.app import conf_dir
from dlma.config import compose

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.S)
COMMANDS = [
    line.split("#")[0].strip()
    for kind, block in BLOCKS
    if kind == "bash"
    for line in block.splitlines()
    if line.startswith("python run.py")
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What the README's capital names stand for."""
    folder = tmp_path_factory.mktemp("readme")
    save_small(folder / "MODEL")
    (folder / "PROMPTS.jsonl").write_text(json.dumps({"prompt": "how do i fix a lamp?"}) + "\n")
    (folder / "harmless-base").mkdir()
    with gzip.open(folder / "harmless-base" / "test.jsonl.gz", "wt") as out:
        turns = "\n\nHuman: hi\n\nAssistant: "
        out.write(json.dumps({"chosen": turns + "hello", "rejected": turns + "go"}) + "\n")
    return folder


# Lines of the README's shell blocks that this file does not run: the set-up, of which test_packaging and make make use.
SET_UP = {
    "make demo",
    "make real",
    "make test",
    "python3 -m venv .venv",
    ".venv/bin/pip install -c constraints.txt -e '.[dev,sweep]'",
}


def test_no_line_of_a_shell_block_escapes_the_check():
    shell = [
        line for kind, block in BLOCKS if kind in ("bash", "sh", "shell", "console") for line in block.splitlines()
    ]
    lines = {line.split("#")[0].strip() for line in shell} - {""}
    assert lines - set(COMMANDS) - SET_UP == {".venv/bin/python run.py"}  # the same as `make demo` runs
    assert lines >= SET_UP and not any(line.endswith("\\") for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_passes_the_check(command, files, run_main, monkeypatch):
    monkeypatch.chdir(files)
    words = shlex.split(command)[2:]
    if "mode=lab_base" in words:  # which would train a base: its config is composed and checked, no more
        compose.plan(compose.search_path(conf_dir(), None), words, False)
        return
    mode = [] if any(word.startswith(("mode=", "--help")) for word in words) else ["mode=check"]
    ran = run_main(*words, *mode)
    assert (ran.code, ran.err) == (0, "")


def test_the_python_of_the_readme_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (block,) = [block for kind, block in BLOCKS if kind == "python"]
    assert len([line for line in block.splitlines() if line.strip()]) <= 12
    exec(compile(block, "README.md", "exec"), {})
    (margin,) = json.loads(capsys.readouterr().out)
    assert margin == pytest.approx(float(margin)) and margin != 0


def test_each_file_that_the_readme_names_exists():
    named = re.findall(r"`((?:tests|dlma|conf|experiments|docs)/[\w./-]+)`", TEXT)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_tree_of_the_readme_is_the_package():
    rows = [line for line in TEXT.splitlines() if line.startswith("| `")]
    rooms = [room for line in rows[1:] for room in re.findall(r"`(\w+)`", line.split("|")[1])]
    tree = {path.stem for path in (ROOT / "dlma").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    start = rooms.index("app")
    assert sorted(rooms[start:]) == sorted(tree - {"__init__"})
