"""The README: its commands, its Python, its tree, its length, and that it says its words before it uses them."""

import json
import re

import pytest
from doc_pages import README, blocks, run_words, shell_lines
from small_models import save_small
from source_tree import ROOT

TEXT = README.read_text("utf-8")
LINES = shell_lines(README)
COMMANDS = [line for line in LINES if run_words(line) is not None]
RENDERED = re.compile(r"<!-- \w+:start -->.*?<!-- \w+:end -->", re.S)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What the README's capital names stand for."""
    folder = tmp_path_factory.mktemp("readme")
    save_small(folder / "MODEL")
    (folder / "PROMPTS.jsonl").write_text(json.dumps({"prompt": "how do i fix a lamp?"}) + "\n")
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
    lines = set(LINES)
    assert lines - set(COMMANDS) - SET_UP == {".venv/bin/python run.py"}  # the same as `make demo` runs
    assert lines >= SET_UP and not any(line.endswith("\\") for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_passes_the_check(command, files, run_main, monkeypatch):
    monkeypatch.chdir(files)
    words = [word for word in run_words(command) if not re.match(r"mode\b", word)]
    ran = run_main(*words, "mode=check")
    assert (ran.code, ran.err) == (0, "")


def test_the_python_of_the_readme_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (block,) = blocks(README, "python")
    assert len([line for line in block.splitlines() if line.strip()]) <= 12
    exec(compile(block, "README.md", "exec"), {})
    (margin,) = json.loads(capsys.readouterr().out)
    assert margin == pytest.approx(float(margin)) and margin != 0


def test_the_tree_of_the_readme_is_the_package_with_a_line_for_each_room():
    (block,) = [block for block in blocks(README, "text") if block.startswith("dlma/\n")]
    listed = [line.strip().split("  ")[0].split() for line in block.splitlines()[1:]]
    tree = {
        path.stem: path
        for path in (ROOT / "dlma").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert sorted(room for rooms in listed for room in rooms) == sorted(set(tree) - {"__init__"})
    packages = {room for room, path in tree.items() if path.is_dir()}
    assert max(len(packages & set(rooms)) for rooms in listed) == 1


def words_read(text):
    """What a reader reads: no code, tables and pictures, and of a link its words."""
    text = re.sub(r"```.*?```|<picture>.*?</picture>|<!--.*?-->|!\[.*?\]\(.*?\)", " ", text, flags=re.S)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    return re.sub(r"\[(.*?)\]\(.*?\)", r"\1", text).split()


def test_the_readme_is_read_in_minutes():
    assert 600 <= len(words_read(TEXT)) <= 700


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (r"\bR\b", r"\*self-reward R\* is"),
        (r"\bnats?\b", r"\*nats\*"),
        (r"\bp\+", r"\*p\+\* is"),
        (r"\bKL\b", r"the \*KL\*, the distance"),
        (r"\bDPO\b", r"DPO, which"),
        (r"\bmargins?\b", r"\*margin\*"),
        (r"\binterval", r"95 % interval"),
        (r"\blab\b", r"the \*lab\*"),
        (r"\bRLAIF\b", r"RLAIF, for which"),
        (r"\bRLCD\b", r"RLCD, which"),
    ],
)
def test_a_word_is_said_before_it_is_used(word, said):
    """In the prose, in order: what is named first is where it is said."""
    text = " ".join(words_read(TEXT))
    first, told = re.search(word, text), re.search(said, text)
    assert told.start() <= first.start() < told.end(), text[max(0, first.start() - 60) : first.end()]
