"""Presets of today's chat models: what their templates write, turn end, BOS and system text; from prompts to policy."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from chat_families import FAMILIES, NO_THINKING, chat_network, chat_tokenizer, family_of
from omegaconf import OmegaConf

from dlma.app import conf_dir
from dlma.config import compose
from dlma.model.language import LanguageModel
from dlma.prompts.rendering import answer_end, begins_with_bos, rendered, rendered_ids
from dlma.prompts.wording import Wording
from dlma.records import Turn

CHAT = {
    path.stem: text
    for path in sorted((conf_dir() / "model").glob("*.yaml"))
    if re.search(r"^chat: true", text := path.read_text(), re.M) and "wheel:" not in text
}
HUB = {  # what each is, and the recipe that suits it
    "qwen3_0_6b": ("Qwen/Qwen3-0.6B", "small_full"),
    "smollm2_135m_instruct": ("HuggingFaceTB/SmolLM2-135M-Instruct", "small_lora"),
    "smollm2_1_7b_instruct": ("HuggingFaceTB/SmolLM2-1.7B-Instruct", "small_lora"),
    "smollm3_3b": ("HuggingFaceTB/SmolLM3-3B", "chat_lora_24gb"),
    "qwen3_1_7b": ("Qwen/Qwen3-1.7B", "small_lora"),
    "qwen3_4b": ("Qwen/Qwen3-4B", "chat_lora_24gb"),
    "qwen3_8b": ("Qwen/Qwen3-8B", "chat_lora_24gb"),
    "llama3_1_8b_instruct": ("meta-llama/Llama-3.1-8B-Instruct", "chat_lora_24gb"),
    "llama3_2_1b_instruct": ("meta-llama/Llama-3.2-1B-Instruct", "small_lora"),
    "llama3_2_3b_instruct": ("meta-llama/Llama-3.2-3B-Instruct", "chat_lora_24gb"),
    "gemma3_1b_it": ("google/gemma-3-1b-it", "small_lora"),
    "ministral_8b_instruct": ("mistralai/Ministral-8B-Instruct-2410", "chat_lora_24gb"),
    "olmo2_1b_instruct": ("allenai/OLMo-2-0425-1B-Instruct", "small_lora"),
    "olmo2_7b_instruct": ("allenai/OLMo-2-1124-7B-Instruct", "chat_lora_24gb"),
    "phi4_mini_instruct": ("microsoft/Phi-4-mini-instruct", "chat_lora_24gb"),
}
RUN_WITH_WEIGHTS = {"smollm2_135m_instruct"}  # as its four-bit sibling of the package index
THINKING = {name for name, family in FAMILIES.items() if "enable_thinking" in family.template}


def wording(name, affix="user"):
    return Wording(
        source="test", system="{system}", user="{text}", assistant="{text}", answer="{affix}", format="chat",
        chat_affix=affix, chat_join="{text} {affix}", chat_options=NO_THINKING if name in THINKING else {},
        pairs=[{"positive": {"system": "Be good.", "affix": "(good)"}, "negative": {"affix": "(bad)"}}],
    )  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_question_and_a_system_text_are_written_letter_by_letter(name):
    family, tokenizer, asked = FAMILIES[name], chat_tokenizer(name), [Turn("user", "What?")]
    assert rendered(tokenizer, wording(name), asked, "plain", 0) == family.alone
    told = rendered(tokenizer, wording(name), asked, "positive", 0)
    assert told == family.told.replace("What?", "What? (good)")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_conversation_begins_with_at_most_one_bos_and_an_answer_ends_with_the_turns_end(name):
    family, tokenizer = FAMILIES[name], chat_tokenizer(name)
    end = tokenizer.convert_tokens_to_ids(family.end)
    assert answer_end(tokenizer, wording(name)) == end
    model = LanguageModel(chat_network(name), tokenizer, name)
    assert end in model.eos_ids and model.added_end is None
    text = family.alone
    (ids,) = rendered_ids(tokenizer, wording(name), [text])
    bos = family.names.get("bos_token")
    assert begins_with_bos(tokenizer, wording(name)) is (bos is not None and text.startswith(bos))
    assert ids[: len(text)] == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert bos is None or ids[1] != ids[0]


def test_a_preset_names_a_hub_model_and_selects_its_recipe():
    """Without composing each: test_load composes one of each recipe."""
    found = {name: OmegaConf.load(conf_dir() / "model" / f"{name}.yaml") for name in CHAT}
    assert {name: (one.path, one._recipe_) for name, one in found.items()} == HUB
    overrides = [line for one in found.values() for line in one.defaults if not isinstance(line, str)]
    assert [next(iter(line.values())) for line in overrides] == [one._recipe_ for one in found.values()]
    allowed = {"defaults", "_recipe_", "path", "revision", "chat"}
    assert all(set(one) <= allowed for one in found.values())


@pytest.mark.parametrize("preset", CHAT)
def test_a_preset_says_what_never_ran_and_whether_it_thinks(preset):
    family = family_of(preset)
    said = "Never run here with its weights" in CHAT[preset]
    assert said is (preset not in RUN_WITH_WEIGHTS and preset != "qwen3_0_6b")
    thinks = "enable_thinking" in family.template
    assert ("base/no_thinking" in OmegaConf.load(conf_dir() / "model" / f"{preset}.yaml").defaults) is thinks


def test_a_preset_of_a_model_that_thinks_asks_it_not_to_until_the_user_does():
    words = ["model=qwen3_4b", "data=jsonl", "data.path=p.jsonl"]
    path = compose.search_path(conf_dir(), None)
    assert compose.plan(path, words, False).cfg.prompts.chat_options == NO_THINKING
    asked = [*words, "prompts.chat_options={enable_thinking: true}"]
    assert compose.plan(path, asked, False).cfg.prompts.chat_options == {"enable_thinking": True}


ONE_OF_EACH = {id(family_of(preset)): preset for preset in CHAT if preset != "smollm2_135m_instruct"}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ONE_OF_EACH.values())
def test_a_tiny_model_of_the_same_class_goes_from_prompts_to_policy(preset, run_main, tmp_path):
    name = next(name for name, family in FAMILIES.items() if family is family_of(preset))
    tokenizer = chat_tokenizer(name)
    chat_network(name).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"prompt": f"how do i bake {number} loaves"} for number in range(12)]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    quick = ["recipe.max_new_tokens=8", "recipe.batch_pairs=4", "recipe.optim.warmup=1", "recipe.lr=1e-3"]
    dtype = ["recipe.dtype=float32", "judges=[]", "metrics=[]", "name=run"]
    ran = run_main(
        f"model={preset}", f"model.path={tmp_path / 'model'}", "data=jsonl", "data.path=prompts.jsonl", *quick, *dtype
    )
    assert ran.code == 0, ran.err
    run = tmp_path / "outputs" / "run"
    (row, *_) = pq.read_table(run / "pairs.parquet").to_pylist()
    expected = FAMILIES[name].alone.replace("What?", row["question"])
    assert tokenizer.decode(row["plain_context_ids"]) == expected
    assert (run / "policy" / "adapter_model.safetensors").is_file() or (run / "policy" / "model.safetensors").is_file()
