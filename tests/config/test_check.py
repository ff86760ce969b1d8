"""The config: every mistake of every kind is reported at once, with a place and a suggestion."""

import itertools
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dlma.app import conf_dir
from dlma.config import compose, relations, signatures
from dlma.config.build import build, scientific
from dlma.errors import UserError
from dlma.redaction import redact

CONF = conf_dir()
FILLED = {
    "hf": ["model.path=/models/m"],
    **{f"data={name}": ["data.path=p.jsonl"] for name in ("jsonl", "parquet", "csv", "hh", "redteam")},
    "server": ["sampler.urls=[http://localhost:8000/v1]", "adapter=lora"],
    "annotate": ["mode.run=r"],
    "versus": ["mode.runs=[r]"],
    "scorer_accuracy_hh": ["data.path=p.jsonl"],
    "real_self_reward": ["data.path=p.jsonl"],
    "judges=local": ["judges.local.model.path=m"],
    "judges=llm_by_task": ["judge_prompt=harmless"],
    "judges=reward": ["judges.reward.model.path=m"],
    "metrics=reward": ["metrics.reward.reward.path=m"],
    "metrics=perplexity": ["metrics.perplexity.model.path=m"],
    "metrics=trained_reward": ["metrics.trained_reward.path=m"],
    "first_real": ["data.path=p.jsonl"],
    "mode=export": ["mode.run=outputs/dlma"],
}

LATER = {"scorer=implicit_reward": ["iterations=2", "+scorer@iteration.later.scorer=implicit_reward"]}  # no first round


def filled(choice: str) -> list[str]:
    """An option, with what it needs to be complete, or in the place that it is for."""
    if choice in LATER:
        return LATER[choice]
    return [choice, *needed(choice)]


def needed(choice: str) -> list[str]:
    return FILLED.get(choice, FILLED.get(choice.partition("=")[2], []))


def options() -> list[str]:
    """`group=option` for every YAML file of every group."""
    found = []
    for folder in sorted(p for p in CONF.iterdir() if p.is_dir() and p.name != "hydra"):
        found += [f"{folder.name}={path.stem}" for path in sorted(folder.glob("*.yaml"))]
    return found


# Groups whose options choose nothing of another group and rule nothing out: one of each is composed at a time.
TOGETHER = ("prompts", "labels", "metrics", "trainer", "logger", "judge_prompt", "preflight", "panel")


def bundles() -> list[list[str]]:
    """Every option of every group: those of TOGETHER side by side, each of the others alone."""
    by_group = {name: [one for one in options() if one.startswith(f"{name}=")] for name in TOGETHER}
    side_by_side = [[one for one in row if one] for row in itertools.zip_longest(*by_group.values())]
    return side_by_side + [[one] for one in options() if one.partition("=")[0] not in TOGETHER]


@pytest.mark.parametrize("choices", bundles(), ids=" ".join)
def test_every_shipped_option_composes_and_fits_the_signature_it_names(choices, monkeypatch):
    monkeypatch.setattr(relations.importlib.util, "find_spec", lambda name: name)  # as where every extra is installed
    words = [word for choice in choices for word in filled(choice)]
    plan = compose.plan(compose.search_path(CONF, None), words, False)
    assert plan.cells >= 1 and plan.cfg.mode._target_.startswith("dlma.")


def test_what_is_composed_side_by_side_chooses_nothing_else_and_is_every_option_once():
    texts = [path.read_text() for group in TOGETHER for path in (CONF / group).glob("*.yaml")]
    assert not any(re.search(r"^ *- override |@package", text, re.M) for text in texts)
    assert sorted(one for some in bundles() for one in some) == sorted(options())


def composed(*overrides):
    return compose.plan(compose.search_path(CONF, None), list(overrides), False).cfg


def test_judges_and_metrics_are_lists_of_options_and_text_has_no_oracle():
    assert set(composed().judges) == {"oracle_harmless", "oracle_helpful"}
    assert set(composed("judges=[oracle,self]").judges) == {"oracle_harmless", "oracle_helpful", "self"}
    assert composed("judges=[]").judges == {} == composed("metrics=[]").metrics
    assert composed("evaluation=text").judges == {}
    assert set(composed("evaluation=text", "judges=[self]").judges) == {"self"}
    text = composed("model=hf", "model.path=m", "data=hh", "data.path=p")
    assert text.judges == {} and "skills" not in text.metrics


@pytest.mark.parametrize("rubric", sorted(path.stem for path in (CONF / "judges" / "rubric").glob("*.yaml")))
def test_every_rubric_can_be_put_to_an_llm_judge(rubric):
    node = composed("judges=[llm]", f"judges/rubric@judges.llm.rubric={rubric}").judges.llm.rubric
    assert build(node).criterion


# --- one mistake of each kind: what must be said of it


@pytest.mark.parametrize(
    "override, said",
    [
        ("method=dlmaa", "method=dlmaa: no such option; did you mean method=dlma? (there are base, best_of_n"),
        ("mehtod=dlma", "mehtod: unknown key; did you mean method?"),
        ("objective.betta=3", "objective.betta: unknown key; did you mean objective.beta?"),
        ("+objective.betta=3", "objective.betta: unknown key; did you mean objective.beta?"),
        ("++objective.betta=3", "objective.betta: unknown key; did you mean objective.beta?"),
        ("betta=3", "betta: unknown key; did you mean"),
        ("beta=3", "beta: unknown key; did you mean recipe.beta or objective.beta?"),
        ("store.rot=x", "store.rot: unknown key; did you mean store.root?"),
        ("recipe.lrr=1", "recipe.lrr: unknown key; did you mean recipe.lr?"),
        ("seed=abc", "seed: must be an integer, not 'abc'"),
        ("seed=true", "seed: must be an integer, not True"),
        ("seed=1.5", "seed: must be an integer, not 1.5"),
        ("seed=null", "seed: must be an integer, not None"),
        ("recipe.beta=high", "recipe.beta: must be a number, not 'high'"),
        ("recipe.dtype=float23", "must be one of float32, bfloat16, auto, not 'float23'; did you mean float32?"),
        ("recipe.lora={rank: 8, alpha: 16, target: all}", "recipe.lora.target: unknown key; did you mean"),
        ("recipe.lora={rank: 8, alpha: 16}", "recipe.lora.targets: is missing"),
        ("recipe.optim.lr=???", "recipe.optim.lr: must be given: recipe.optim.lr=..."),
        ("recipe.optim.lr=${recipe.lrr}", "key 'recipe.lrr' not found; did you mean recipe.lr?"),
        ("model=hf", "model.path: must be given: model.path=..."),
        ("scorer._target_=dlma.scorer.self_reward.Self", "self_reward has no Self; it has"),
        ("scorer._target_=dlma.scorer.nothing.Self", "there is no module dlma.scorer.nothing"),
        ("scorer._target_=os.system", "must name something inside `dlma.`"),
        ("scorer=3", "scorer=3: no such option"),
        ("prompts=lab_pairs/kind_crul", "prompts=lab_pairs/kind_crul: no such option"),
        ("scorer={a: 1}", "scorer="),
        ("~sampler", "sampler: is missing"),
        ("~loger", "~loger: cannot be set"),
        ("hydra.run.dr=x", "hydra.run.dr=x: cannot be set; did you mean hydra.run.dir?"),
        ("hydra/launcher=jobllib", "did you mean hydra/launcher=joblib?"),
        ("seed=1,2", "seed=1,2: several values need -m"),
        ("seed", "seed: not an override; write key=value"),
        ("judges=[orakle]", "judges=orakle: no such option; did you mean judges=oracle?"),
        ("judges.oracle_harmles.tie=1", "judges.oracle_harmles: needs a _target_"),
        ("judges.oracle_harmless.tye=1", "unknown key; did you mean judges.oracle_harmless.tie?"),
        ("judges.oracle_harmless.tie=wide", "judges.oracle_harmless.tie: must be a number, not 'wide'"),
        ("metrics.skills=3", "metrics.skills: must be a Component, not 3"),
        ("judges=[local]", "judges.local.model.path: must be given"),
        ("seed=[", "seed=[: not an override"),
        ("seed.x=1", "seed: must be an integer, not {'x': 1}"),
        ("hydra.run.dir.x=1", "hydra.run.dir.x=1: cannot be set"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(override, said, run_main):
    ran = run_main(override)
    assert ran.code == 2
    assert said in ran.err
    assert ran.err.startswith("error: ") and "Traceback" not in ran.err
    assert list(ran.folder.iterdir()) == []


def test_all_mistakes_of_all_kinds_are_reported_at_once(run_main, tmp_path):
    experiment = tmp_path / "mine" / "experiment"
    experiment.mkdir(parents=True)
    text = "# @package _global_\nsede: 1\nobjective: {betta: 2, epochs: many}\nrecipe: {lr: fast}\n"
    (experiment / "typo.yaml").write_text(text)
    ran = run_main(
        "--config-dir", str(tmp_path / "mine"), "experiment=typo", "method=dlmaa", "+pairs.sead=1", "store.root=3"
    )
    assert ran.code == 2
    lines = ran.err.splitlines()
    assert lines[0] == "error: 7 mistakes in the config"
    expected = {
        "method=dlmaa: no such option": "(there are",
        "sede: unknown key; did you mean seed?": "experiment/typo.yaml]",
        "objective.betta: unknown key": "experiment/typo.yaml]",
        "objective.epochs: must be an integer, not 'many'": "experiment/typo.yaml]",
        "recipe.lr: must be a number, not 'fast'": "experiment/typo.yaml]",
        "pairs.sead: unknown key; did you mean pairs.seed?": "[command line]",
        "store.root: must be text, not 3": "[command line]",
    }
    for start, place in expected.items():
        assert [line for line in lines if line.strip().startswith(start) and place in line], (start, ran.err)


def test_a_mistake_is_reported_where_it_was_made_not_where_it_is_read(run_main):
    ran = run_main("seed=abc", "recipe.lr=fast")
    assert ran.err.splitlines() == [
        "error: 2 mistakes in the config",
        "  seed: must be an integer, not 'abc' [command line]",
        "  recipe.lr: must be a number, not 'fast' [command line]",
    ]


def test_a_broken_experiment_does_not_hide_the_other_mistakes(run_main, tmp_path):
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("# @package _global_\ndefaults:\n  - override /methd: base\n")
    ran = run_main("--config-dir", str(tmp_path / "mine"), "experiment=broken", "sed=1")
    assert ran.code == 2
    assert "methd" in ran.err and "sed: unknown key; did you mean seed?" in ran.err


def test_yaml_that_is_no_yaml_is_named_with_file_and_line(run_main, tmp_path):
    folder = tmp_path / "mine" / "prompts"
    folder.mkdir(parents=True)
    (folder / "bad.yaml").write_text("a: 1\nb: [1,\n")
    ran = run_main("--config-dir", str(tmp_path / "mine"), "prompts=bad")
    assert ran.code == 2
    assert "bad.yaml" in ran.err and "line 3" in ran.err


def test_every_value_of_a_sweep_is_checked_but_not_their_product(run_main):
    axes = [f"recipe.{key}={','.join(map(str, range(1, 9)))}" for key in ("beta", "lr", "optim.clip_norm", "top_p")]
    ran = run_main("-m", "seed=0,x", "method=dlma,rlcdd", *axes)  # 2 * 2 * 8^4 cells: the product would take hours
    assert ran.code == 2
    assert "seed: must be an integer, not 'x'" in ran.err
    assert "method=rlcdd: no such option; did you mean method=rlcd?" in ran.err


@pytest.mark.slow
def test_one_value_on_the_command_line_ends_the_sweep_of_an_experiment_over_it():
    path = compose.search_path(CONF, None)
    assert compose.plan(path, ["experiment=tuning"], True).cells == 20
    assert compose.plan(path, ["experiment=tuning", "recipe.beta=0.3"], True).cells == 5
    assert compose.plan(path, ["experiment=tuning", "recipe.beta=0.3,0.6", "seed=0,1"], True).cells == 20


def test_the_sweep_of_an_experiment_is_checked(run_main, tmp_path):
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    text = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params: {seed: '0,y', recipe.bta: '1,2'}\n"
    (folder / "sweep.yaml").write_text(text)
    ran = run_main("--config-dir", str(tmp_path / "mine"), "experiment=sweep")
    assert ran.code == 2
    assert "seed: must be an integer, not 'y'" in ran.err
    assert "recipe.bta: unknown key; did you mean recipe.beta?" in ran.err


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_prefixes_do_not_matter_for_known_keys(prefix, run_main):
    ran = run_main("mode=check", f"{prefix}recipe.beta=0.25", f"{prefix}method=rlcd")
    assert ran.code == 0
    assert OmegaConf.create(ran.out.removesuffix("config ok\n")).objective.beta == 0.25


def test_the_command_line_beats_the_experiment_beats_the_method(run_main, tmp_path):
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "e.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /pairs: plain\nseed: 7\nrecipe: {beta: 0.3, lr: 0.5}\n"
    )
    ran = run_main("--config-dir", str(tmp_path / "mine"), "experiment=e", "recipe.lr=0.25", "mode=check")
    cfg = OmegaConf.create(ran.out.removesuffix("config ok\n"))
    assert (cfg.seed, cfg.recipe.beta, cfg.recipe.lr) == (7, 0.3, 0.25)
    assert cfg.pairs == OmegaConf.create({**cfg.pairs, "first": "plain", "second": "plain"})


def test_a_model_selects_its_recipe_and_the_user_may_choose_another(run_main):
    chosen = [run_main("mode=check", "model=hf", "model.path=/m", *more) for more in ([], ["recipe=paper"])]
    names = [OmegaConf.create(ran.out.removesuffix("config ok\n")).recipe.name for ran in chosen]
    assert names == ["small_full", "paper"]


def test_another_model_under_the_labs_recipe_is_refused_with_the_right_one_named(run_main):
    ran = run_main("model=hf", "model.path=/m", "recipe=lab")
    assert ran.code == 2
    assert "use recipe=small_full" in ran.err


# --- build


def test_build_calls_the_target_with_runtime_objects_and_values_only(monkeypatch):
    calls = []
    monkeypatch.setattr("dlma.modes.check.show", lambda *args, **named: calls.append((args, named)) or "built")
    node = OmegaConf.create({"_target_": "dlma.modes.check.show", "_recipe_": "r", "a": {"b": [1, "${c}"]}, "c": 5})
    assert build(node, "cfg") == "built"
    assert calls == [(("cfg",), {"a": {"b": [1, 5]}, "c": 5})]


def test_a_null_target_is_a_component_that_does_nothing():
    node = OmegaConf.create({"_target_": None})
    assert build(node) is None
    assert scientific(node) == {"_target_": None}


@pytest.mark.parametrize("target", ["os.system", "subprocess.run", "dlma", "dlma.config", "dlmax.config.show"])
def test_build_refuses_what_is_not_ours(target):
    with pytest.raises(UserError):
        build({"_target_": target})


# --- redaction


def test_secrets_are_redacted_by_key_by_environment_and_in_urls(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "planted-key-123")
    values = {
        "judge": {"api_key": "s1", "openai_apikey": "s2", "hf_token": "s3", "PASSWORD": "s4", "secret": ["s5"]},
        "nested": [{"client_secret": {"deep": "s6"}}],
        "note": "before planted-key-123 after",
        "url": "https://me:s7@host/x",
        "max_new_tokens": 64,
        "tokenizer": "bpe",
        "max_prompt_tokens": 5,
        "api_key": None,
    }
    redacted = redact(values)
    text = repr(redacted)
    assert not [secret for secret in ("planted-key", *(f"'s{i}'" for i in range(1, 7)), "s7@") if secret in text]
    assert redacted["max_new_tokens"] == 64
    assert (redacted["tokenizer"], redacted["max_prompt_tokens"], redacted["api_key"]) == ("bpe", 5, None)
    assert redacted["note"] == "before <redacted> after"
    assert redacted["url"] == "https://<redacted>@host/x"
    assert values["judge"]["api_key"] == "s1"


# --- the shipped recipes


@pytest.mark.parametrize("path", sorted((CONF / "recipe").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_value_of_a_recipe_stands_with_its_source(path: Path):
    marks = ("# paper", "# official code", "# ours", "# inferred", "# AlpacaFarm", "# RLCD", "# safe-rlhf")
    marks += ("# experiments/",)
    elsewhere = re.compile(r"#|_target_: | +\w+:$|.*: (\$\{|\?\?\?)")
    lines = [line for line in path.read_text().splitlines() if ":" in line and not elsewhere.match(line)]
    below, unmarked = False, []
    for line in lines:  # a node either has a mark, or each line below it does
        top = not line.startswith(" ")
        below = line.endswith(":") if top else below
        if (top != below) and not any(mark in line for mark in marks):
            unmarked.append(line)
    base = path.parent.name == "base"
    assert [line.split(":")[0] for line in unmarked] in ([[]] if base else [["name"], ["name", "exclusive"]])
    assert base or OmegaConf.load(path).name == path.stem


def test_the_papers_margin_weight_is_the_official_weight_taken_out_of_beta():
    paper = OmegaConf.load(CONF / "recipe" / "paper.yaml")
    assert paper.margin_weight == pytest.approx(paper.beta * 0.2)
    assert (paper.beta, paper.lr, paper.optim.warmup, paper.batch_pairs) == (0.1, 5e-7, 150, 64)
    assert (paper.margin_low, paper.margin_high, paper.max_new_tokens) == (-40, 40, 200)


def test_a_number_is_keyed_as_its_annotation_says():
    node = {"_target_": "dlma.sampler.local.LocalSampler", "temperature": 1, "top_p": 1}
    fields = signatures.signature(node["_target_"]).fields
    node |= {name: 0 for name, field in fields.items() if field.required and name not in node}
    keyed = scientific(node)
    assert (type(keyed["temperature"]), type(keyed["top_k"])) == (float, int)
    assert keyed == scientific({**node, "temperature": 1.0, "top_p": 1.0})


def test_a_component_is_keyed_by_its_class_whatever_file_it_stands_in():
    assert scientific({"_target_": "dlma.pairs.sampled.NoPairs"}) == {"_target_": "NoPairs"}


@pytest.mark.parametrize("group", ["judges", "metrics", "judges/rubric", "model/guard", "model/score"])
def test_the_docs_name_every_judge_metric_and_rubric(group):
    text = (CONF.parent / "docs" / "evaluation.md").read_text()
    assert [path.stem for path in (CONF / group).glob("*.yaml") if f"`{path.stem}`" not in text] == []
