"""A config file of somebody else describes an experiment; how Hydra starts programs is the command line's to say."""

import re

import pytest
import yaml

REPORT = "mode=report"


@pytest.fixture
def canary(elsewhere, monkeypatch):
    """A module whose function leaves a file; Hydra can import it by name."""
    (elsewhere / "canary_of_others.py").write_text(
        "from pathlib import Path\ndef sing(*args, **named):\n    Path('ran').touch()\n    raise SystemExit(9)\n"
    )
    monkeypatch.syspath_prepend(elsewhere)
    return elsewhere / "ran"


@pytest.fixture
def experiment(elsewhere):
    """Write FOLDER/experiment/theirs.yaml (or another option) for --config-dir."""

    def write(text, option="experiment/theirs", package="_global_"):
        path = elsewhere / "theirs" / f"{option}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# @package {package}\n{text if isinstance(text, str) else yaml.safe_dump(text)}")

    return write


SING = {"_target_": "canary_of_others.sing"}
SETTINGS = {
    "hydra.callbacks.x._target_": {"hydra": {"callbacks": {"x": SING}}},
    "hydra.launcher._target_": {"hydra": {"launcher": SING}},
    "hydra.sweeper._target_": {"hydra": {"sweeper": SING}},
    "hydra.job_logging.handlers.x.()": {"hydra": {"job_logging": {"handlers": {"x": {"()": SING["_target_"]}}}}},
    "hydra.job.env_set.A": {"hydra": {"job": {"env_set": {"A": "b"}}}},
    "hydra.run.dir": {"hydra": {"run": {"dir": "somewhere/else"}}},
    "hydra.searchpath": {"hydra": {"searchpath": ["pkg://canary_of_others"]}},
    "hydra": {"mine": {"callbacks": {"x": SING}}, "hydra": "${mine}"},
    "hydra/launcher": {"defaults": [{"override /hydra/launcher": "joblib"}]},
}
ASKED = [["mode=check"], ["--cfg", "job"], ["-m", "mode=check", "seed=0,1"]]


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_of_hydra_in_a_file_is_refused_with_its_key_and_place(key, words, experiment, canary, run_main):
    experiment(SETTINGS[key])
    ran = run_main("--config-dir", "theirs", "experiment=theirs", *words)
    assert ran.code == 2 and not canary.exists()
    (line,) = ran.err.strip().splitlines()
    assert line.startswith(f"error: {key}: a config file may not set this") and "theirs/experiment/theirs.yaml" in line


@pytest.mark.parametrize(
    ("text", "option", "package"),
    [
        ({"x": SING}, "experiment/theirs", "hydra.callbacks"),
        ({"x": SING}, "mode/theirs", "hydra.callbacks"),
        ({"defaults": [{"/judges@hydra.callbacks.x": "llm"}]}, "experiment/theirs", "_global_"),
    ],
)
def test_neither_a_header_nor_a_package_brings_it_in(text, option, package, experiment, canary, run_main):
    experiment(text, option, package)
    ran = run_main("--config-dir", "theirs", option.replace("/", "="))
    assert ran.code == 2 and "hydra.callbacks" in ran.err and not canary.exists()


@pytest.mark.parametrize("key", ["hydra.callbacks.x._target_", "+hydra.callbacks.x._target_", "hydra/launcher"])
def test_nor_does_a_sweep_of_the_files_own(key, experiment, canary, run_main):
    experiment({"hydra": {"sweeper": {"params": {key: "joblib" if "/" in key else SING["_target_"], "seed": "0,1"}}}})
    ran = run_main("--config-dir", "theirs", "experiment=theirs", "-m", "mode=check")
    assert ran.code == 2 and "a config file may not set this" in ran.err and not canary.exists()


@pytest.mark.parametrize("name", ["config.yaml", "hydra/launcher/basic.yaml", "hydra/job_logging/plain.yaml"])
def test_a_folder_of_options_takes_the_place_of_nothing_that_starts_programs(name, experiment, canary, run_main):
    experiment(SING, name.removesuffix(".yaml"))
    ran = run_main("--config-dir", "theirs", "mode=check")
    assert ran.code == 2 and "--config-dir theirs: its " in ran.err and not canary.exists()


def test_what_is_refused_in_a_file_the_command_line_may_say(canary, run_main):
    """And it is what would have run."""
    ran = run_main("+hydra.callbacks.x._target_=canary_of_others.sing", REPORT, "runs=nothing")
    assert canary.exists() and ran.code != 0


def test_an_experiment_may_bring_a_sweep_and_its_mode(experiment, run_main):
    experiment({"hydra": {"mode": "MULTIRUN", "run": {"dir": ""}, "sweeper": {"params": {"seed": "0,1"}}}})
    ran = run_main("--config-dir", "theirs", "experiment=theirs", "mode=check")
    assert ran.code == 0 and "of 2 cells the first is shown" in ran.out


# Commands that start servers

SERVE = "serve {model} --port {port}"
SAID = f'sampler.start="{SERVE}"'
SERVER = {"_target_": "dlma.sampler.server.ServerSampler", "start": SERVE, "urls": ["u"], "served": None, "extra": {}}


@pytest.mark.parametrize(
    ("text", "words", "key"),
    [
        ({"defaults": [{"override /sampler": "server"}], "sampler": {"start": SERVE}}, [], "sampler.start"),
        ({"sampler": {"start": "${name}"}, "name": SERVE}, ["sampler=server"], "sampler.start"),
        ({"sampler": {"start": f"{SERVE} "}}, ["sampler=server", SAID], None),
        ({"objective": {"sampler": SERVER}}, ["objective=ppo", "adapter=lora"], "objective.sampler.start"),
        (
            {"hydra": {"sweeper": {"params": {"sampler.start": f"'{SERVE}'"}}}},
            ["sampler=server", "-m"],
            "sampler.start",
        ),
    ],
)
def test_a_file_starts_no_server(text, words, key, experiment, run_main):
    experiment(text)
    ran = run_main("--config-dir", "theirs", "experiment=theirs", "mode=check", *words)
    if key is None:  # the command line stands over the file
        assert ran.code == 0 and f"start: {SERVE}\n" in ran.out
        return
    assert ran.code == 2 and f"{key}: starts a program, so no config file may say it" in ran.err


def test_the_command_line_starts_one_also_for_a_sampler_that_takes_its_values_from_the_runs(run_main):
    served = ["sampler=server", SAID, "sampler.urls=[http://h/v1]", "adapter=lora", "objective=ppo"]
    assert run_main("mode=check", *served, "objective.sampler=${sampler}").code == 0
    swept = run_main("-m", "mode=check", "sampler=server", f"sampler.start='{SERVE}','{SERVE} --x'")
    assert swept.code == 0 and "of 2 cells" in swept.out


# Components


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["recipe.lora={_target_: dlma.app.main, rank: 1, alpha: 1, targets: all}"], "recipe.lora: no component"),
        (
            ["sampler=server", "sampler.urls=[http://h]", "+sampler.extra.a=[{_target_: os.system}]"],
            "sampler.extra.a.0",
        ),
        (["prompts.chat_options={a: {_target_: os.system}}"], "prompts.chat_options.a: no component"),
        (["reward._target_=dlma.app.main"], "is no component: its parameter argv"),
        (["logger.csv._target_=dlma.modes.pin.pin"], "logger.csv: _target_ dlma.modes.pin.pin: is a mode"),
        (
            ["mode._target_=dlma.logger.trackers.CsvTracker"],
            "mode: _target_ dlma.logger.trackers.CsvTracker: is no mode",
        ),
    ],
)
def test_a_target_stands_only_where_its_kind_of_component_is_expected(words, says, run_main):
    ran = run_main(*([] if words[0].startswith("mode") else ["mode=check"]), *words)
    assert ran.code == 2 and says in ran.err


def test_check_lists_every_component_that_would_be_built(run_main):
    """The list is that of the targets in the YAML above it."""
    ran = run_main("mode=check", "judges=[llm]", "endpoint.model=m")
    shown, listed = ran.out.split("what would be built:\n")
    found = dict(re.findall(r"^  (\S+) -> (\S+)$", listed, re.M))

    def walk(node, path=""):
        for key, value in node.items():
            if isinstance(value, dict):
                if value.get("_target_"):
                    yield path + key, value["_target_"]
                yield from walk(value, f"{path}{key}.")

    assert found == dict(walk(yaml.safe_load(shown)))
    assert found["judges.llm.rubric"] == "dlma.judges.rubric.Rubric" and "reward" not in found
