"""Every data preset: what it composes to, which prompts and evaluation it selects, and that it reads its format."""

import functools
import json

import pytest
from omegaconf import OmegaConf
from rows_of_data_sets import NEVER_DOWNLOADED, older, pair, present, processed

from dlma.app import conf_dir
from dlma.config.build import build, scientific
from dlma.config.compose import plan, search_path

OTHERS = {"lab", "lab_by_row", "requests", "do_not_answer", "harmbench"}  # no corpus; with test files of their own
PRESETS = sorted(path.stem for path in (conf_dir() / "data").glob("*.yaml") if path.stem not in OTHERS)
HELPFUL = {"hh_helpful", "alpaca", "reward_bench", "reward_bench_2"}
FIXTURES = {
    "pku_saferlhf": [older, present],
    "hh": [pair, processed],
    "hh_harmless": [pair, processed],
    "hh_helpful": [pair, processed],
    "alpaca": [lambda text: {"instruction": text, "input": "", "output": "yes"}],
    "redteam": [lambda text: {"prompt": text, "category": "Crime"}],
    "xstest": [lambda text: {"id": "1", "prompt": text, "type": "homonyms", "label": "safe", "focus": "", "note": ""}],
    **{name: [row] for name, row in NEVER_DOWNLOADED.items()},
}
CATEGORIES = {
    "redteam": {"Crime"},
    "xstest": {"safe"},
    "or_bench": {"safe"},
    "strong_reject": {"Fraud"},
    "sorry_bench": {"7"},
    "beavertails_evaluation": {"privacy_violation"},
    "reward_bench": {"xstest-should-respond"},
    "reward_bench_2": {"Safety"},
}
WITH_PAIRS = {"hhh_alignment", "reward_bench", "reward_bench_2"}
PAIRED = {"pku_saferlhf", "hh", "hh_harmless", "hh_helpful", "jsonl", "parquet", "csv", *WITH_PAIRS}


@functools.cache
def composed(*overrides):
    return plan(search_path(conf_dir(), None), ["model=hf", "model.path=x", *overrides], False).cfg


def preset(name):
    """Composed once; the tests of a preset share it."""
    return composed(f"data={name}", "data.path=somewhere")


def read(name, path, **changes):
    node = OmegaConf.create(OmegaConf.to_container(preset(name).data))  # open to keys, as on the command line
    prompts, account = build(OmegaConf.merge(node, {"path": str(path), **changes})).read()
    return list(prompts), account


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_selects_its_prompts_judge_and_evaluation(name):
    cfg = preset(name)
    kind = "helpful" if name in HELPFUL else "harmless"
    assert f"{kind}_positive_prompt" in cfg.prompts.source
    assert cfg.evaluation._target_ == "dlma.evaluation.text.TextEvaluation"
    assert cfg.judge_prompt == composed("data=jsonl", "data.path=x", f"judge_prompt={kind}").judge_prompt


def test_the_requests_select_a_contrast_of_tone():
    cfg = composed("data=requests")
    assert (cfg.prompts, cfg.judge_prompt) == (
        composed("data=jsonl", "data.path=x", "prompts=sentiment_affix").prompts,
        composed("data=jsonl", "data.path=x", "judge_prompt=helpful").judge_prompt,
    )
    assert [p.positive.affix for p in cfg.prompts.pairs] == ["(a joyful, delighted, positive response)"]
    assert cfg.evaluation._target_ == "dlma.evaluation.text.TextEvaluation"


@pytest.mark.parametrize("name", sorted(PAIRED - WITH_PAIRS))
def test_human_pairs_of_a_data_set_have_their_rows(name):
    cfg = composed(f"data={name}", "data.path=somewhere", "method=rlhf")
    assert cfg.pairs._target_ == "dlma.pairs.human.HumanPairs"
    assert cfg.scorer._target_ == "dlma.scorer.construction.Construction"


@pytest.mark.parametrize("name", FIXTURES)
def test_a_preset_reads_rows_of_its_format_and_splits_them_by_hash(tmp_path, name):
    for number, row in enumerate(FIXTURES[name]):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps(row(f"question {i}")) + "\n" for i in range(100)))
        prompts, account = read(name, path)
        assert account.kept == account.read == len(prompts) == 100
        assert [p.turns[-1].content for p in prompts] == [f"question {i}" for i in range(100)]
        assert {p.split for p in prompts} >= {"train", "test"}
        assert all((p.rejected is not None) == (name in PAIRED) for p in prompts)
        assert {p.category for p in prompts} == CATEGORIES.get(name, {None})


@pytest.mark.parametrize("name", NEVER_DOWNLOADED)
def test_a_preset_whose_data_were_never_downloaded_says_so(name):
    assert "Never downloaded here: " in (conf_dir() / "data" / f"{name}.yaml").read_text()
    assert "/" in OmegaConf.load(conf_dir() / "data" / f"{name}.yaml").path


def test_of_21_forms_of_a_request_the_plain_one_is_read(tmp_path):
    row = NEVER_DOWNLOADED["sorry_bench"]
    rows = [{**row(f"{style} {i}"), "prompt_style": style} for i in range(10) for style in ("base", "caesar", "slang")]
    path = tmp_path / "question.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    prompts, account = read("sorry_bench", path)
    assert [p.turns[0].content for p in prompts] == [f"base {i}" for i in range(10)] and account.read == 10
    assert len(read("sorry_bench", path, only={"prompt_style": "slang", "category": 7})[0]) == 10


def test_prompts_of_many_answers_are_read_once_and_pairs_of_one_prompt_each(tmp_path):
    """BeaverTails has a row for each answer; a set of pairs keeps all that a prompt has."""
    for name, kept in (("beavertails", 5), ("reward_bench", 10), ("reward_bench_2", 10)):
        row = NEVER_DOWNLOADED[name]
        rows = [{**row(f"question {i}"), name: 1} for i in range(5)]
        again = [{**one, "rejected": ["worse"] if name == "reward_bench_2" else "worse"} for one in rows]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in [*rows, *again, *rows]))
        prompts, account = read(name, path)
        assert (len(prompts), account.read, account.dropped) == (kept, 15, {"duplicate prompt": 15 - kept})


def test_a_file_of_strong_reject_names_its_prompts_otherwise(tmp_path):
    path = tmp_path / "strongreject_dataset.csv"
    path.write_text("category,source,forbidden_prompt\nFraud,ours,Sell air\nFraud,ours,Sell fog\n")
    columns = {"_target_": "dlma.data.jsonl.Columns", "prompt_column": "forbidden_prompt"}
    prompts, _ = read("strong_reject", path, format=columns)
    assert [(p.turns[0].content, p.category) for p in prompts] == [("Sell air", "Fraud"), ("Sell fog", "Fraud")]


def test_presets_of_the_hub_name_what_the_official_code_reads():
    places = {name: composed(f"data={name}").data for name in ("pku_saferlhf", "hh_harmless", "hh_helpful")}
    assert {name: (d.path, d.subset, d.hub_split, d.max_words) for name, d in places.items()} == {
        "pku_saferlhf": ("PKU-Alignment/PKU-SafeRLHF", None, "train", 600),
        "hh_harmless": ("PKU-Alignment/processed-hh-rlhf", "harmless-base", "train", 600),
        "hh_helpful": ("PKU-Alignment/processed-hh-rlhf", "helpful-base", "train", 600),
    }


@pytest.mark.parametrize("name", PRESETS)
def test_whatever_decides_which_prompts_are_read_stands_in_the_key_of_the_stage(name):
    node = preset(name).data
    assert set(scientific(node)) == set(node) and set(scientific(node)["format"]) == set(node.format)
