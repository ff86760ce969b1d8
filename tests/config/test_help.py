"""The help: every group with its options and its default, and the name under which the program was called."""

import sys
import tomllib

import pytest
from source_tree import ROOT

from dlma.config import help


def test_every_group_stands_in_the_help_with_its_options_and_its_default():
    entries = help.GROUP.findall((help.conf_dir() / "config.yaml").read_text())
    assert {group for group, *_ in entries} == {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} - {
        "hydra"
    }
    page = help.text(help.conf_dir())
    for group, _, about in entries:
        assert f"  {group:<11} {about}\n" in page
    assert "[self_reward]" in page and "random_labels" in page  # the default is marked, another option is not
    assert "[random_labels]" not in page


@pytest.mark.parametrize(
    ("called", "said"), [("/usr/bin/dlma", ["dlma"]), ("run.py", ["python", "run.py"]), ("", ["python", "run.py"])]
)
def test_the_program_has_the_name_that_it_was_called_by(monkeypatch, called, said):
    monkeypatch.setattr(sys, "argv", [called])
    assert help.command() == said
    assert ("python run.py" in help.text(help.conf_dir())) is (said != ["dlma"])


def test_the_installed_command_is_the_one_that_the_project_declares():
    assert list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]) == [help.PROGRAM]
