"""A run folder from somebody else is data: whatever its config.yaml names, no mode that reads it runs anything."""

import json
import shutil
from functools import cache

import pyarrow.parquet as pq
import pytest
import yaml
from planted_costs import pairs, plant_costs, rewarded
from small_models import save_small

from dlma.app import conf_dir, main
from dlma.config.build import resolved
from dlma.config.compose import plan, search_path
from dlma.config.recorded import Recorded, parts, targets
from dlma.errors import UserError
from dlma.metrics.summary import summary_rows, write_metrics
from dlma.records import EvalRow, Prompt, Turn, to_table

PROMPT = Prompt("p0", [Turn("user", "how do i mend the lamp ?")], "test")
CODE = """
import os
from pathlib import Path
from transformers import PretrainedConfig, PreTrainedTokenizerFast
Path(os.environ["DLMA_TEST_CANARY"]).touch()
class Config(PretrainedConfig): model_type = "evil"
class Tokenizer(PreTrainedTokenizerFast): pass
"""


@pytest.fixture
def canary(elsewhere):
    """A file that is there once something that a folder named has run."""
    return elsewhere / "ran"


@pytest.fixture
def evil(canary):
    """A component node that, built, leaves the canary: a run of its own in that folder."""
    return {"_target_": "dlma.app.main", "argv": ["mode=report", "runs=nothing", f"hydra.run.dir={canary}"]}


@cache
def settings():
    """A config as a run of the lab has it."""
    return resolved(plan(search_path(conf_dir(), None), [], False).cfg)


def plant(folder, config, method="dlma", answer="with care"):
    """All files of a finished run, and of one whose costs have still to be counted."""
    rows = [EvalRow("p0", arm, "q", None, f"{arm} {answer}", 3, True, -1.0, -1.0, 0.0) for arm in ("base", "aligned")]
    plant_costs(folder, config, rewarded(pairs()), steps=[])
    known = json.loads((folder / "manifest.json").read_text())
    about = {"key": "k", "version": 1, "ended": "now", "git": None, "libraries": {}, "notes": {}}
    stages = {name: {**about, **known.get(name, {})} for name in ("pairs", "scored", "policy")}
    (folder / "manifest.json").write_text(json.dumps(stages))
    (folder / "status.json").write_text(json.dumps({"status": "done", "overrides": [f"method={method}"]}))
    write_metrics(folder / "metrics.csv", summary_rows(rows, ["base", "aligned"]), method=method, base="b", seed=0)
    pq.write_table(to_table(EvalRow, rows), folder / "answers.parquet")
    pq.write_table(to_table(Prompt, [PROMPT]), folder / "prompts.parquet")


def with_code(folder):
    """A model whose config and tokenizer come with Python files that leave the canary."""
    save_small(folder)
    (folder / "evil.py").write_text(CODE)
    for name, changes in {
        "config.json": {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}},
        "tokenizer_config.json": {
            "tokenizer_class": "Tokenizer",
            "auto_map": {"AutoTokenizer": [None, "evil.Tokenizer"]},
        },
    }.items():
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def hf(path, **changes):
    node = {"_target_": "dlma.model.load.hf_model", "path": str(path), "revision": "main", "dtype": "float32"}
    return {"model": {**node, "bits": None, "lora": None, **changes}}


def hostile(kind, evil, run):
    """What a folder says in place of some nodes of the config, by what it tries."""
    judge = {"_target_": "dlma.scorer.judge.Judge", "ab": evil, "seed": 0, "orders": "both", "margin": "verdict"}
    others = ("prompts", "sampler", "data", "sft", "labels", "objective", "reward", "trainer", "logger", "mode")
    return {
        "nested in the model": {"model": {**settings()["model"], "lora": evil}},
        "in place of the model": {"model": evil},
        "in place of the rest": {**dict.fromkeys(others, evil), "judges": {"x": evil}, "metrics": {"x": evil}},
        "in the judge of the scorer": {"scorer": judge, **hf(run / "policy")},
        "code by its own word": hf(run / "policy", trust_remote_code=True),
    }[kind]


KINDS = [
    "nested in the model",
    "in place of the model",
    "in place of the rest",
    "in the judge of the scorer",
    "code by its own word",
]
# The command line of every mode that reads a run folder: its config, or a policy in it as a model.
CONFIGS = {
    "report": ["runs=run"],
    "chat": ["mode.run=run", "mode.prompt='how are you?'"],
    "export": ["mode.run=run", "mode.what=pairs", "mode.format=text", "mode.negative=true"],
    "versus": ["mode.runs=[run,rival]", "judges=[oracle]"],
    "annotate": ["mode.run=run"],
}
POLICIES = {
    "plan": ["model=hf", "model.path=run/policy", "mode.prompts=4", "mode.answer_tokens=4"],
    "score": ["mode.policy=run/policy", "data=jsonl", "data.path=mine.jsonl"],
}
OTHERS = {
    "agreement",
    "check",
    "dashboard",
    "fetch",
    "lab_base",
    "pin",
    "reward",
    "run",
    "serve",
    "store",
    "workbench",
}  # as plan: model.path only; serve reads neither


def test_every_mode_is_known_to_read_run_folders_or_not():
    assert {path.stem for path in (conf_dir() / "mode").glob("*.yaml")} == {*CONFIGS, *POLICIES, *OTHERS}


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    return with_code(tmp_path_factory.mktemp("coded") / "policy")


@pytest.fixture
def planted(canary, elsewhere, coded, evil, monkeypatch):
    """Two hostile runs of a kind, whose policy comes with code."""
    monkeypatch.setenv("DLMA_TEST_CANARY", str(canary))

    def plant_both(kind):
        run = elsewhere / "run"
        for folder, method in ((run, "dlma"), (elsewhere / "rival", "rlcd")):
            plant(folder, {**settings(), **hostile(kind, evil, run)}, method)
            shutil.copytree(coded, folder / "policy")
        return run

    return plant_both


def ended_well(ran):
    """A result, or one clear line."""
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    return "Traceback" not in ran.err and (ran.code, len(errors)) in ((0, 0), (2, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_no_mode_runs_what_a_config_names(kind, planted, canary, run_main):
    planted(kind)
    codes = {}
    for mode, words in CONFIGS.items():
        ran = run_main(f"mode={mode}", *words)
        codes[mode] = ran.code
        assert ended_well(ran), (mode, ran.err)
        assert not canary.exists(), mode
    assert (codes["report"], codes["annotate"], codes["chat"]) == (0, 0, 2)


def test_no_mode_runs_the_code_of_a_policy(planted, canary, elsewhere, run_main):
    planted("code by its own word")
    (elsewhere / "mine.jsonl").write_text(json.dumps({"prompt": "a b", "chosen": "a b c", "rejected": "d"}) + "\n")
    for mode, words in POLICIES.items():
        ran = run_main(f"mode={mode}", *words)
        assert ran.code == 2 and ended_well(ran), (mode, ran.err)
        assert not canary.exists(), mode


def test_what_the_folders_name_would_leave_the_canary(evil, canary):
    assert main(evil["argv"]) == 2
    assert canary.exists()


def test_code_of_a_model_runs_by_the_command_lines_word(planted, canary, elsewhere, run_main, monkeypatch):
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(elsewhere / "modules"))
    planted("code by its own word")
    ran = run_main("mode=export", *CONFIGS["export"])
    assert ran.code == 2 and "mode.trust_remote_code=true" in ran.err
    assert not canary.exists()
    ran = run_main("mode=export", *CONFIGS["export"], "mode.trust_remote_code=true")
    assert ran.code == 0, ran.err
    assert canary.exists()


def test_an_adapter_that_names_a_module_is_not_loaded(tmp_path):
    from dlma.model.language import _with_adapter
    from dlma.model.load import ModelSpec

    settings = {"peft_type": "LORA", "megatron_config": {"a": 1}, "megatron_core": "canary_of_others"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="megatron_config"):
        _with_adapter(None, ModelSpec("m", tmp_path, "float32", adapter=tmp_path))


# Recorded


@pytest.fixture
def recorded(tmp_path):
    def write(text):
        (tmp_path / "config.yaml").write_text(text if isinstance(text, str) else yaml.safe_dump(text))
        return Recorded(tmp_path / "config.yaml")

    return write


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.system ['true']", "a: [1", "- 1", "", "model: [1]", "model: {_target_: [x]}", "sft: no"],
)
def test_what_is_no_config_is_refused_with_the_file_named(recorded, text):
    with pytest.raises(UserError, match=r"config\.yaml"):
        recorded(text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config\.yaml: cannot be read"):
        Recorded(tmp_path / "config.yaml")


def test_a_runs_own_components_come_out_as_they_are(recorded):
    config = settings()
    found = recorded(config)
    assert found.model(trust=False) == config["model"]
    assert found.component("prompts", "prompts") == config["prompts"]
    assert found.value("seed") == 0 and found.value("recipe.max_prompt_tokens") == config["recipe"]["max_prompt_tokens"]
    numbers = {name: config["sampler"][name] for name in ("temperature", "top_k", "top_p", "max_new_tokens")}
    assert found.sampling() == {"_target_": "dlma.sampler.local.LocalSampler", **numbers}


def test_a_server_that_a_folder_names_is_not_asked(recorded):
    """Of a sampler only the numbers are taken: neither addresses nor the name of a key's variable."""
    node = {"_target_": "dlma.sampler.server.ServerSampler", "urls": ["http://h"], "key_env": "OPENAI_API_KEY"}
    found = recorded({"sampler": {**settings()["sampler"], **node}}).sampling()
    assert found == recorded({"sampler": settings()["sampler"]}).sampling()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lora": {"_target_": "dlma.app.main"}}, "model.lora: no component belongs here"),
        ({"lora": {"rank": 1, "alpha": 1, "targets": [{"_target_": "x"}]}}, "model.lora.targets.0: no component"),
        ({"base": ["standard"]}, "model.base: must be text"),
        ({"more": 1}, "model.more: unknown key"),
        ({"_target_": "dlma.app.main"}, "no preset of conf/model names"),
        ({"_target_": "dlma.model.load.ModelSpec"}, "no preset of conf/model names"),
        ({"_target_": "dlma.model.guard.GuardSpec"}, "no preset of conf/model names"),
        ({"_target_": None}, "no preset of conf/model names"),
    ],
)
def test_a_component_that_does_not_fit_is_refused_by_its_key(recorded, changes, says):
    config = settings()
    with pytest.raises(UserError, match=r"config\.yaml") as refused:
        recorded({**config, "model": {**config["model"], **changes}}).model(trust=True)
    assert says in str(refused.value)


def test_a_component_of_ones_own_is_named_by_the_present_command_line(recorded):
    node = {"_target_": "dlma.judges.rubric.Rubric"}
    with pytest.raises(UserError, match="no preset of conf/prompts names"):
        recorded({"prompts": node}).component("prompts", "prompts")
    with pytest.raises(UserError, match="is missing"):  # known, and held against its schema
        recorded({"prompts": node}).component("prompts", "prompts", chosen=node["_target_"])


@pytest.mark.parametrize("key", ["seed", "recipe.max_prompt_tokens", "recipe.reward.lr"])
@pytest.mark.parametrize("value", ["${oc.env:HOME}", {"_target_": "dlma.app.main"}, None])
def test_a_value_of_another_type_is_refused(recorded, key, value):
    *above, leaf = key.split(".")
    tree = {leaf: value}
    for name in reversed(above):
        tree = {name: tree}
    with pytest.raises(UserError, match=rf"{key} must be"):
        recorded(tree).value(key)
    with pytest.raises(UserError, match=f"has no {key}"):
        recorded({"other": 1}).value(key)


def test_the_presets_say_what_may_stand_in_a_folder():
    assert targets("model") == {f"dlma.model.load.{name}" for name in ("hf_model", "lab_base", "wheel_model")}
    assert targets("prompts") == {"dlma.prompts.wording.Wording"}
    assert targets("judge_prompt") == {"dlma.judge_prompt.ABPrompt"}


# A part of a component


def test_the_wheel_of_a_model_is_read_and_no_other_part(tmp_path, evil):
    preset = plan(search_path(conf_dir(), None), ["model=smollm2_135m_instruct_q4"], False).cfg
    config = resolved(preset)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert Recorded(tmp_path / "config.yaml").model(trust=False) == config["model"]
    assert parts("model") == {"dlma.wheels.Wheel"}
    for name in ("wheel", "member"):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "model": {**config["model"], name: evil}}))
        with pytest.raises(UserError, match=f"model.{name}: no component belongs here"):
            Recorded(tmp_path / "config.yaml").model(trust=False)
    wrong = {**config["model"], "wheel": {**config["model"]["wheel"], "url": "x"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "model": wrong}))
    with pytest.raises(UserError, match="url: unknown key"):
        Recorded(tmp_path / "config.yaml").model(trust=False)
