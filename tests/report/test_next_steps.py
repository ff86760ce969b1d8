"""What is said after a run: commands that work as they stand, each run here as a shell takes it."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from planted_runs import plant
from small_models import byte_level_tokenizer, save_small
from source_tree import ROOT

from dlma.config import help
from dlma.report.next_steps import Command, after_run, after_sweep, override, text

NAMES = ["dlma", "dlma,seed=1", "it's, so", "a b", "a\\'b", "[x]{y}", "漢 字", "5"]
VERBS, THINGS = ("mend", "paint", "sell", "move", "clean"), ("lamp", "boat", "door", "cake", "chair")
TINY = ["data.train=8", "data.test=4", "data.validation=4", "recipe.epochs=1", "recipe.max_new_tokens=8"]


def command(*overrides, options=(), own_sweep=False):
    return Command(["python", "run.py"], "python", options, overrides, own_sweep)


def plain(steps):
    """The commands by what they are for, without the program."""
    return {name: line.removeprefix("python run.py ") for name, line in steps}


def with_policy(folder, **options):
    plant(folder, prompts=2, **options)
    (folder / "policy").mkdir()
    (folder / "policy" / "model.safetensors").write_bytes(b"")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_is_the_value_that_the_shell_and_hydra_read_back(name, elsewhere):
    for folder, wanted in ((elsewhere / "outputs" / name, f"outputs/{name}"), (Path("/away") / name, f"/away/{name}")):
        (word,) = shlex.split(shlex.join([override("mode.run", folder)]))
        (found,) = OverridesParser.create().parse_overrides([word])
        assert (found.key_or_group, str(found.value())) == ("mode.run", wanted)


def test_the_commands_of_a_run_are_its_own(elsewhere):
    folder = with_policy(elsewhere / "outputs" / "mine", seed=3)
    given = ("seed=3", "name=mine", "trainer=gpu", "recipe.beta=0.5", "prompts=lab_weak", "labels=sign")
    assert plain(after_run(command(*given, options=["--config-dir", "my conf"]), folder)) == {
        "the report": f"python -m webbrowser {folder.as_uri()}/report.html",
        "chat with both": "--config-dir 'my conf' trainer=gpu mode=chat mode.run=outputs/mine",
        "your own model": "--config-dir 'my conf' seed=3 trainer=gpu labels=sign model=hf model.path=MODEL "
        "data=jsonl data.path=PROMPTS.jsonl",
        "three seeds": "--config-dir 'my conf' -m trainer=gpu recipe.beta=0.5 prompts=lab_weak labels=sign seed=3,4,5",
        "compare": "--config-dir 'my conf' -m seed=3 trainer=gpu recipe.beta=0.5 prompts=lab_weak labels=sign "
        "method=dlma,rlcd",
    }


@pytest.mark.parametrize(
    "word", ["objective.scale=2", "pairs.side=positive", "scored.path=mine.parquet", "scorer=judge"]
)
def test_what_was_changed_of_a_method_is_not_asked_of_another_one(elsewhere, word):
    folder = with_policy(elsewhere / "outputs" / "mine", seed=3)
    assert "compare" not in plain(after_run(command("seed=3", word), folder))


def test_other_modes_are_for_one_process(elsewhere):
    folder = with_policy(elsewhere / "outputs" / "mine", seed=0)
    steps = plain(after_run(command("name=mine", "trainer.devices=2", "store.root=kept"), folder))
    assert steps["chat with both"] == "store.root=kept mode=chat mode.run=outputs/mine"
    assert "trainer.devices=2" in steps["three seeds"]


def test_what_does_not_hold_of_a_run_is_not_said(elsewhere):
    bare = plant(elsewhere / "bare", prompts=2, method="rlcd")
    (bare / "policy").mkdir()
    (bare / "policy" / "config.json").write_text("{}")  # what store.keep_policies leaves
    steps = plain(after_run(command("method=rlcd"), bare))
    assert "chat with both" not in steps and steps["compare"].endswith("method=rlcd,dlma")
    assert steps["your own model"].startswith("method=rlcd ")
    whole = plain(after_run(command("experiment=headline", own_sweep=True), bare))
    assert whole["its whole sweep"] == "-m experiment=headline" and "compare" not in whole


@pytest.mark.parametrize(
    "group", ["pairs.human.HumanPairs", "pairs.human_and_own.HumanAndOwnPairs", "scorer.annotator.Annotator"]
)
def test_labels_that_come_with_the_prompts_are_not_asked_of_ones_own(elsewhere, group):
    folder = plant(elsewhere / "run", prompts=2, config={group.split(".")[0]: group})
    assert "method=" not in plain(after_run(command("method=rlhf"), folder))["your own model"]


def test_the_commands_of_a_sweep_are_of_its_folder_and_of_what_became_of_its_cells(elsewhere):
    sweep = elsewhere / "outputs" / "dlma+rlcd"
    cells = [with_policy(sweep / "dlma", method="dlma"), plant(sweep / "rlcd", prompts=2, method="rlcd")]
    (sweep / "report.html").write_text("")
    steps = plain(after_sweep(command("method=dlma,rlcd", "name=both"), sweep, cells))
    assert shlex.split(steps["chat with one"]) == ["mode=chat", "mode.run='outputs/dlma+rlcd/dlma'"]
    assert shlex.split(steps["against dlma"]) == ["mode=report", "runs='outputs/dlma+rlcd'", "sweep.baseline=dlma"]
    assert shlex.split(steps["side by side"]) == ["mode=serve", "mode.folder='outputs/dlma+rlcd'"]
    cells.append(plant(sweep / "cd", method="cd", status={"status": "failed", "reason": "x"}))
    steps = plain(after_sweep(command("method=dlma,rlcd,cd", "name=both"), sweep, cells))
    assert steps["what failed"] == "-m method=dlma,rlcd,cd name=both sweep.retry_failed=true"


def test_nothing_is_printed_where_there_is_nothing_to_do():
    assert text([]) == ""
    assert text([("a", "x"), ("long", "y")]) == "next:\n  a     x\n  long  y"


# As a person runs them


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, prompts and a browser that only notes down what it is to open."""
    folder = tmp_path_factory.mktemp("next")
    prompts = [f"how do i {verb} the {thing}?" for verb in VERBS for thing in THINGS]
    save_small(folder / "MODEL", tokenizer=byte_level_tokenizer(prompts, 400), context=512)
    (folder / "PROMPTS.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    (folder / "browser").write_text('#!/bin/sh\necho "$1" >>opened\n')
    (folder / "browser").chmod(0o755)
    (folder / "run.py").symlink_to(ROOT / "run.py")
    return folder


def shell(place, line, entered=""):
    """A line, typed in that folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "BROWSER": f"{place}/browser %s"}
    how = dict(cwd=place, env=environment, input=entered, capture_output=True, text=True, timeout=500)
    done = subprocess.run(line, shell=True, check=False, **how)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)  # nine commands, on a machine that may have other work
@pytest.mark.parametrize(
    "words", [["name=mine"], ["method=rlhf", "seed=1"], ["method=base"], ["-m", "method=dlma,rlcd", "name=both"]]
)
def test_every_command_that_a_run_ends_with_works_as_it_stands(place, words):
    python = shlex.quote(sys.executable)
    lines = re.split(r"^next:\n", shell(place, f"{python} run.py {shlex.join([*words, *TINY])}"), flags=re.M)
    assert len(lines) == 2
    steps = [re.split(r"  +", line.strip(), maxsplit=1)[1] for line in lines[1].splitlines()]
    assert 3 <= len(steps) <= 5
    for step in steps:
        small = " data.max_prompts=24 recipe.epochs=1 recipe.max_new_tokens=8" if "MODEL" in step else ""
        pressed = "timeout --preserve-status -s INT 25 " if "mode=serve" in step else ""  # Ctrl-C, once it has begun
        free = " mode.port=0" if pressed else ""
        out = shell(place, pressed + step + small + free, "how do i mend a lamp?\n\n" if "mode=chat" in step else "")
        assert "self-reward" in out or "mode=chat" not in step
        assert "runs: 2 in outputs/both" in out or not pressed
    assert Path((place / "opened").read_text().splitlines()[-1].removeprefix("file://")).name == "report.html"


def test_the_program_is_named_as_the_shell_finds_it(monkeypatch, elsewhere):
    monkeypatch.setattr(sys, "executable", str(elsewhere / ".venv" / "bin" / "python"))
    monkeypatch.setattr(sys, "argv", ["run.py"])
    assert help.started_by() == ([".venv/bin/python", "run.py"], ".venv/bin/python")
