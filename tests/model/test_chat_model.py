"""Chat models and base models with a template: what the files tell, what they do not, and that a run says so."""

import json

import pytest
from small_models import save_small
from toy_tokenizers import TALKERS, talker, tokenizer

from dlma.app import conf_dir
from dlma.config import compose
from dlma.context import RunContext
from dlma.model.chat_model import format_of, ids_of, told_by
from dlma.model.load import ModelSpec

MARKED = {"chatml", "gemma", "llama3", "marked"}  # their templates close every turn with a token of their own


@pytest.mark.parametrize("family", TALKERS)
def test_a_chat_models_end_is_what_its_template_closes_every_turn_with(family):
    tok, end = talker(family)
    ends = {tok.convert_tokens_to_ids(end)}
    found, why = told_by(tok, ends)
    assert found == ("chat" if family in MARKED else "template")
    assert (f"ends with {end}" in why) if family in MARKED else ("may be a base model's" in why)


@pytest.mark.parametrize("family", TALKERS)
def test_a_base_model_with_a_template_ends_with_what_ends_a_document(family):
    """As Qwen3's and SmolLM2's base models: the template of their chat siblings, and <|endoftext|> as EOS."""
    tok, end = talker(family)
    document = tok.convert_tokens_to_ids("<|endoftext|>" if family in ("chatml", "marked") else tok.eos_token)
    ends = {document} - {tok.convert_tokens_to_ids(end)}
    assert told_by(tok, ends)[0] == told_by(tok, set())[0] == "template"


def test_one_token_that_begins_and_ends_everything_is_a_base_models():
    """As a tokenizer whose <|end_of_text|> is BOS and EOS, and closes every turn of the template besides."""
    tok, end = talker("chatml")
    tok = type(tok)(tokenizer_object=tok.backend_tokenizer, bos_token=end, eos_token=end)
    tok.chat_template = talker("chatml")[0].chat_template
    assert told_by(tok, {tok.eos_token_id})[0] == "template"


def test_without_a_template_there_is_nothing_to_say():
    assert told_by(tokenizer("llama"), {1}) == ("template", "")


@pytest.mark.parametrize(("value", "ids"), [(None, set()), (0, {0}), ([2, 5], {2, 5}), ((7,), {7})])
def test_the_eos_of_a_config_is_one_id_or_several_or_none(value, ids):
    assert ids_of(value) == ids


# Folders


def folder_of(path, family, **generation):
    """A small model with a family's tokenizer and such a generation config."""
    tok, end = talker(family)
    ids = (tok.bos_token_id or 0, tok.eos_token_id or 0, tok.pad_token_id or 0)
    folder = save_small(path, tokenizer=tok, special=ids, vocabulary=len(tok))
    held = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**held, **generation}))
    return folder, tok.convert_tokens_to_ids(end)


def spec(folder, chat=None):
    return ModelSpec("small", folder, "float32", chat=chat)


def test_the_generation_config_decides_then_the_config_and_the_presets_word_before_both(tmp_path):
    folder, end = folder_of(tmp_path, "chatml")
    endings = [(end, "chat"), ([0, end], "chat"), (0, "template")]
    for value, expected in endings:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
        found, line = format_of(spec(folder))
        assert found == expected
        assert line.startswith("small: ") and f"prompts.format={expected}; prompts.format=" in line
    (folder / "generation_config.json").unlink()
    held = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**held, "eos_token_id": end}))
    assert format_of(spec(folder))[0] == "chat"
    assert format_of(spec(folder, chat=False)) == ("template", "")
    assert format_of(spec(tmp_path / "nowhere", chat=True)) == ("chat", "")


def composed(*overrides):
    words = [*overrides, "data=jsonl", "data.path=p.jsonl"]
    return compose.plan(compose.search_path(conf_dir(), None), words, False).cfg


def test_a_run_settles_the_format_once_says_so_and_records_it(tmp_path, capsys):
    folder, _ = folder_of(tmp_path / "m", "chatml")
    words = ["model=hf", f"model.path={folder}", "prompts=sentiment_affix"]
    cell = RunContext(composed(*words), tmp_path)
    assert cell.settings["prompts"]["format"] == "auto"
    assert cell.recorded["prompts"]["format"] == cell.prompts["format"] == cell.wording.format == "chat"
    assert cell.under(prompts=cell.cfg.prompts).wording.format == "chat"
    said = capsys.readouterr().err
    assert said.count("a chat model") == said.count("prompts.format=template writes plain text") == 1
    plain = RunContext(composed(*words, "model.chat=false"), tmp_path)
    asked = RunContext(composed(*words, "prompts.format=template"), tmp_path)
    assert plain.recorded["prompts"]["format"] == asked.recorded["prompts"]["format"] == "template"
    assert capsys.readouterr().err == ""
