"""The commands of the page on trackers are taken as they stand, and so is what a W&B agent makes of its sweep.yaml."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from dlma.app import conf_dir
from dlma.config import compose

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "loggers.md").read_text(encoding="utf-8")


def composed(*words):
    return compose.plan(compose.search_path(conf_dir(), None), list(words), multirun=False).cfg


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, re.S)


@pytest.mark.parametrize("line", [line for block in blocks("bash") for line in block.splitlines()])
def test_each_command_composes_with_the_trackers_that_it_names(line):
    python, script, *words = shlex.split(line)
    assert (python, script) == ("python", "run.py")
    named = next(word for word in words if word.startswith("logger=")).removeprefix("logger=")
    assert list(composed(*words).logger) == named.strip("[]").split(",")


def test_every_option_of_the_group_stands_on_the_page():
    options = {path.stem for path in (conf_dir() / "logger").glob("*.yaml")}
    assert set(re.findall(r"^\| `(\w+)` \|", TEXT, re.M)) == options


def test_what_an_agent_makes_of_the_sweep_is_a_command_of_ours():
    """An agent puts `key=value` words in place of args_no_hyphens, one of each parameter's values."""
    (block,) = blocks("yaml")
    sweep = yaml.safe_load(block)
    assert sweep["command"][:3] == ["${env}", "python", "${program}"] and sweep["command"][-1] == "${args_no_hyphens}"
    values = {name: given.get("values", [given.get("max")])[-1] for name, given in sweep["parameters"].items()}
    cfg = composed(*sweep["command"][3:-1], *(f"{name}={value}" for name, value in values.items()))
    assert (cfg.recipe.beta, cfg.recipe.margin_weight, cfg.logger.wandb.mode) == (2.0, 1.0, "online")
