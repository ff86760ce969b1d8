"""The help: every group, every option with a line of meaning, and the name under which the program was called.

`python tests/config/test_help.py` writes docs/options.md, the options of every group as a page.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

if __name__ == "__main__":  # started by hand: the kit is on pytest's path only
    sys.path[:0] = [str(Path(__file__).parents[1] / "kit"), str(Path(__file__).parents[2])]

from source_tree import ROOT

from dlma.config import compose, help

CONF = ROOT / "conf"
GROUPS = {group.name: group for group in help.groups(CONF)}
PAGE = ROOT / "docs" / "options.md"


def page() -> str:
    """docs/options.md."""
    parts = [
        "# Every group and its options\n\nThe map is the tree is the config: the options of a group are the files of "
        "`conf/GROUP/`, and their code lies in the room of\nthat name in `dlma/`. Bold: the default. "
        "`python run.py --help GROUP` shows the same; `docs/settings.md` has the range of every\nnumber. Made by "
        "`python tests/config/test_help.py` of the first comment of each file.\n"
    ]
    for name, default, about in GROUPS.values():
        options = help.options([CONF], name)
        chosen = re.findall(r"\w+", default)
        rows = "\n".join(f"| {_option(one, one in chosen)} | {_cell(said)} |" for one, said in options.items())
        parts.append(f"## `{name}`\n\n{about[0].upper()}{about[1:]}.\n\n| option | what it is |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


def _option(name: str, is_default: bool) -> str:
    return f"**`{name}`**" if is_default else f"`{name}`"


def _cell(text: str) -> str:
    return re.sub(r"([|*<>])", r"\\\1", text)


def test_every_group_stands_in_the_help_with_its_default():
    assert set(GROUPS) == {path.name for path in CONF.iterdir() if path.is_dir()} - {"hydra"}
    page = help.text(CONF)
    for name, default, about in GROUPS.values():
        assert f"  {name:<13} {about}  [{default.strip('[]')}]\n" in page


def test_the_eight_options_of_the_help_compose():
    """As they stand there: each line of the page that begins with an override, but for what stands for the user's."""
    page = help.text(CONF)
    lines = [re.match(r"  ((?:\w+(?:\.\w+)?=\S+ ?)+)  ", line) for line in page.splitlines()]
    eight = [line[1].strip() for line in lines if line]
    assert len(eight) == 8
    words = [word for line in eight for word in line.split()]
    assert compose.plan(compose.search_path(CONF, None), words, False).cells == 1


@pytest.mark.parametrize("group", GROUPS)
def test_a_groups_page_has_every_option_with_a_line_of_its_own_meaning(group):
    options = help.options([CONF], group)
    files = [path for path in (CONF / group).rglob("*.yaml") if path.parent.name != help.PARTS]
    assert set(options) == {str(path.relative_to(CONF / group).with_suffix("")) for path in files}
    for meaning in options.values():
        assert 0 < len(meaning) <= help.LONGEST and meaning.count("(") == meaning.count(")")
    own = [meaning for name, meaning in options.items() if "/" not in name]
    assert len(set(own)) == len(own)
    shown = help.group_text([CONF], group).splitlines()
    marked = {line.split()[0] for line in shown if re.match(r"  \S+ +\* ", line)}
    assert marked == set(re.findall(r"\w+", GROUPS[group].default)) - {"null"}
    assert {line.split()[0] for line in shown if re.match(r"  \S", line)} == set(options)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("# A rule. More of it.\na: 1", "A rule"),
        ("# @package _global_\n# A rule in\n# two lines.\n# More.", "A rule in two lines"),
        ("# A judge:  judges=[llm] endpoint.model=NAME\na: 1", "A judge"),
        ("# A mode:\n#   python run.py mode=x", "A mode"),
        ("# Work (Azar et al. 2023): a rule.  # its source", "Work (Azar et al. 2023): a rule"),
        ("# Does it work? We shall see.", "Does it work?"),
        ("# A rule of prompts=lab with its sides swapped.", "A rule of prompts=lab with its sides swapped"),
        ("# " + "a" * 50 + ": " + "b" * 80 + ", c.", "a" * 50),
        ("# Short: " + "b" * 80 + ", " + "c" * 80 + ".", "Short: " + "b" * 80),
        ("# " + "a" * 40 + " (b, c) " + "d" * 10 + "; " + "e" * 90, "a" * 40 + " (b, c) " + "d" * 10),
        ("# " + "a" * 40 + ", b (c, " + "d" * 90 + ").", "a" * 40),
        ("a: 1  # no comment of the file", ""),
    ],
)
def test_a_meaning_is_the_first_sentence_or_what_of_it_is_whole(text, meaning):
    assert help.meaning(text) == meaning


def test_own_files_stand_beside_those_of_dlma_and_a_wrong_name_is_one_line(run_main, tmp_path):
    (tmp_path / "mine" / "method").mkdir(parents=True)
    (tmp_path / "mine" / "method" / "shorter.yaml").write_text("# @package _global_\n# A control of mine.\n")
    ran = run_main("--help", "method", "--config-dir", str(tmp_path / "mine"))
    assert ran.code == 0 and re.search(r"^  shorter +A control of mine$", ran.out, re.M) and "  rlcd " in ran.out
    (tmp_path / "mine" / "method" / "other.yaml").write_bytes(b"# \xff\n")
    for folder, reason in (("mine", "other.yaml: not UTF-8"), ("none", "no such folder")):
        ran = run_main("--help", "method", "--config-dir", str(tmp_path / folder))
        assert (ran.code, ran.out) == (2, "") and reason in ran.err and ran.err.count("\n") == 1
    ran = run_main("--help", "metod")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: --help metod: no such group; did you mean method? (there are recipe, ")
    assert run_main("method=dlma", "--help").out == run_main("--help").out == help.text(CONF) + "\n"


@pytest.mark.parametrize(
    ("line", "choices"),
    [
        ("met", "method= metrics. metrics="),
        ("method=rlc", "method=rlcd method=rlcd_rescore"),
        ("trainer=mp", "trainer=mps"),
    ],
)
def test_the_shell_completes_groups_and_options(line, choices, run_main, monkeypatch):
    monkeypatch.setenv("COMP_LINE", f"python run.py {line}")
    ran = run_main("-sc", "query=bash")
    assert (ran.code, ran.out.split()) == (0, choices.split())


@pytest.mark.slow
def test_in_bash_the_word_python_completes(tmp_path):
    """As docs/command_line.md has it, with the environment's python."""
    lines = [
        'eval "$(python run.py -sc install=bash)"',
        'COMP_LINE="python run.py method=rlc"; COMP_CWORD=2; hydra_bash_completion; echo "${COMPREPLY[@]}"',
    ]
    where = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, cwd=ROOT, env=where)
    assert ran.stdout.split() == ["method=rlcd", "method=rlcd_rescore"], ran.stderr


@pytest.mark.parametrize(
    ("called", "said"), [("/usr/bin/dlma", ["dlma"]), ("run.py", ["python", "run.py"]), ("", ["python", "run.py"])]
)
def test_the_program_has_the_name_that_it_was_called_by(monkeypatch, called, said):
    monkeypatch.setattr(sys, "argv", [called])
    assert help.command() == said
    assert ("python run.py" in help.text(CONF)) is (said != ["dlma"])
    assert ("python run.py" in help.group_text([CONF], "mode")) is (said != ["dlma"])


def test_the_installed_command_is_the_one_that_the_project_declares():
    assert list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]) == [help.PROGRAM]


def test_the_page_of_the_docs_has_every_option_as_its_file_says():
    assert PAGE.read_text(encoding="utf-8") == page(), "write it again: python tests/config/test_help.py"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
