"""One tokenizer for equal files, another where a file differs."""

import json
import shutil

import pytest

from dlma.lab.bases import base_folder
from dlma.model.shared_tokenizer import shared_tokenizer


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(base_folder("standard"), tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors"))
    return tmp_path / "base"


def test_equal_files_under_the_same_name_are_one_tokenizer_and_weights_do_not_matter(folder):
    other = folder.parent / "elsewhere" / "base"
    shutil.copytree(folder, other)
    (other / "model.safetensors").write_bytes(b"other weights")
    first = shared_tokenizer(folder)
    assert shared_tokenizer(other) is first is shared_tokenizer(folder)
    assert first("a b")["input_ids"]


def test_a_changed_file_and_another_name_are_another_tokenizer(folder):
    first = shared_tokenizer(folder)
    named = folder.rename(folder.with_name("policy"))
    assert shared_tokenizer(named) is not first and shared_tokenizer(named).name_or_path.endswith("policy")
    settings = named / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": "{{ messages[0].content }}"}))
    talk = [{"role": "user", "content": "hello"}]
    assert shared_tokenizer(named).apply_chat_template(talk, tokenize=False) == "hello"
    (named / "chat_template.jinja").write_text("never {{ messages[0].content }}")
    assert shared_tokenizer(named).apply_chat_template(talk, tokenize=False) == "never hello"
