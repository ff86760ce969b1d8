"""Canonical JSON, and fingerprints of model folders."""

import os
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dlma import files
from dlma.errors import UserError
from dlma.store.fingerprint import canonical, fingerprint


def test_canonical_json_sorts_names_and_writes_floats_by_repr():
    assert canonical({"b": [1, (2.0, True)], "a": 1e-05, "c": None}) == '{"a":1e-05,"b":[1,[2.0,true]],"c":null}'


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": {"b": float("nan")}}, "value.a.b: nan"),
        ({"a": [0.0, float("inf")]}, r"value.a\[1\]: inf"),
        ({"a": Path("x")}, "value.a: PosixPath"),
        ({"a": OmegaConf.create({})}, "value.a: DictConfig"),
        ({1: 2}, "value: the name 1 is int"),
    ],
)
def test_what_json_cannot_say_is_refused_with_its_path(value, path):
    with pytest.raises(TypeError, match=path):
        canonical(value)


def model_folder(folder):
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("t")
    (folder / "README.md").write_text("about")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    long_ago = time.time() - 100
    for path in folder.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    return folder


def test_a_fingerprint_follows_content_not_place(tmp_path):
    first, second = model_folder(tmp_path / "a"), model_folder(tmp_path / "b")
    same = fingerprint(first)
    assert fingerprint(second) == same
    (second / "README.md").write_text("other")
    (second / "pytorch_model.bin").unlink()
    assert fingerprint(second) == same


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "adapter_config.json"]
)
def test_a_fingerprint_follows_weights_config_tokenizer_and_template(tmp_path, name):
    folder = model_folder(tmp_path / "a")
    before = fingerprint(folder)
    (folder / name).write_bytes(b"changed")
    assert fingerprint(folder) != before


def test_contents_are_hashed_once_and_again_after_a_change(tmp_path, monkeypatch):
    folder, cache = model_folder(tmp_path / "a"), tmp_path / "fingerprints.json"
    first = fingerprint(folder, cache)
    hashed = []
    whole = files.sha256_file
    monkeypatch.setattr(files, "sha256_file", lambda path: hashed.append(path.name) or whole(path))
    assert fingerprint(folder, cache) == first
    assert hashed == []
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")
    assert fingerprint(folder, cache) != first
    assert hashed == ["model.safetensors"]
    cache.write_text('{"/x": ')
    (folder / "model.safetensors").write_bytes(b"weights")
    assert fingerprint(folder, cache) == first


def test_a_hub_snapshot_is_known_by_commit_and_blob_names(tmp_path, monkeypatch):
    blobs = tmp_path / "models--x" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / ("a" * 64)).write_bytes(b"weights")
    (blobs / ("b" * 40)).write_text("{}")

    def snapshot(commit, weights):
        folder = tmp_path / "models--x" / "snapshots" / (commit * 40)
        folder.mkdir(parents=True)
        (folder / "model.safetensors").symlink_to(f"../../blobs/{weights * 64}")
        (folder / "config.json").symlink_to(f"../../blobs/{'b' * 40}")
        return folder

    (blobs / ("c" * 64)).write_bytes(b"weights")
    monkeypatch.setattr(files, "sha256_file", lambda path: pytest.fail("read a blob"))
    values = [fingerprint(snapshot(*case)) for case in (("1", "a"), ("2", "a"), ("3", "c"))]
    assert len(set(values)) == 3


def test_a_folder_without_safetensors_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match=r"no \.safetensors"):
        fingerprint(tmp_path)
