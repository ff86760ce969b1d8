"""Every data preset: what it composes to, which prompts and evaluation it selects, and that it reads its format."""

import json

import pytest
from rows_of_data_sets import older, pair, present, processed

from dlma.app import conf_dir
from dlma.config.build import build
from dlma.config.compose import plan, search_path

OTHERS = {"lab", "lab_by_row", "requests", "do_not_answer", "harmbench"}  # no corpus; with test files of their own
PRESETS = sorted(path.stem for path in (conf_dir() / "data").glob("*.yaml") if path.stem not in OTHERS)
HELPFUL = {"hh_helpful", "alpaca"}
FIXTURES = {
    "pku_saferlhf": [older, present],
    "hh": [pair, processed],
    "hh_harmless": [pair, processed],
    "hh_helpful": [pair, processed],
    "alpaca": [lambda text: {"instruction": text, "input": "", "output": "yes"}],
    "redteam": [lambda text: {"prompt": text, "category": "Crime"}],
    "xstest": [lambda text: {"id": "1", "prompt": text, "type": "homonyms", "label": "safe", "focus": "", "note": ""}],
}
CATEGORIES = {"redteam": {"Crime"}, "xstest": {"safe"}}
PAIRED = {"pku_saferlhf", "hh", "hh_harmless", "hh_helpful", "jsonl", "parquet", "csv"}


def composed(*overrides):
    return plan(search_path(conf_dir(), None), ["model=hf", "model.path=x", *overrides], False).cfg


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_selects_its_prompts_judge_and_evaluation(name):
    cfg = composed(f"data={name}", "data.path=somewhere")
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


@pytest.mark.parametrize("name", sorted(PAIRED))
def test_human_pairs_of_a_data_set_have_their_rows(name):
    cfg = composed(f"data={name}", "data.path=somewhere", "method=rlhf")
    assert cfg.pairs._target_ == "dlma.pairs.human.HumanPairs"
    assert cfg.scorer._target_ == "dlma.scorer.construction.Construction"


@pytest.mark.parametrize("name", FIXTURES)
def test_a_preset_reads_rows_of_its_format_and_splits_them_by_hash(tmp_path, name):
    for number, row in enumerate(FIXTURES[name]):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps(row(f"question {i}")) + "\n" for i in range(100)))
        prompts, account = build(composed(f"data={name}", f"data.path={path}").data).read()
        assert account.kept == account.read == len(prompts) == 100
        assert [p.turns[-1].content for p in prompts] == [f"question {i}" for i in range(100)]
        assert {p.split for p in prompts} >= {"train", "test"}
        assert all((p.rejected is not None) == (name in PAIRED) for p in prompts)
        assert {p.category for p in prompts} == CATEGORIES.get(name, {None})


def test_presets_of_the_hub_name_what_the_official_code_reads():
    places = {name: composed(f"data={name}").data for name in ("pku_saferlhf", "hh_harmless", "hh_helpful")}
    assert {name: (d.path, d.subset, d.hub_split, d.max_words) for name, d in places.items()} == {
        "pku_saferlhf": ("PKU-Alignment/PKU-SafeRLHF", None, "train", 600),
        "hh_harmless": ("PKU-Alignment/processed-hh-rlhf", "harmless-base", "train", 600),
        "hh_helpful": ("PKU-Alignment/processed-hh-rlhf", "helpful-base", "train", 600),
    }
