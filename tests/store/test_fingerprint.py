"""Canonical JSON, and fingerprints of model folders."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from dlma import files
from dlma.errors import UserError
from dlma.store.fingerprint import canonical, fingerprint, key_of, weights_hash


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


LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUE = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4))


def turned(value):
    """The same value with every dict in the other order."""
    if isinstance(value, dict):
        return {name: turned(value[name]) for name in reversed(value)}
    return [turned(item) for item in value] if isinstance(value, list) else value


def kinds(value):
    """The value with what `==` does not tell apart: 1, 1.0 and True, 0.0 and -0.0."""
    if isinstance(value, dict):
        return {name: kinds(item) for name, item in value.items()}
    return [kinds(item) for item in value] if isinstance(value, list) else (type(value), repr(value))


@given(VALUE)
def test_equal_values_have_one_key_whatever_their_order_and_canonical_json_gives_them_back(value):
    assert key_of(turned(value)) == key_of(value) == key_of(json.loads(canonical(value)))
    assert kinds(json.loads(canonical(value))) == kinds(value)


ALIKE = st.recursive(
    st.sampled_from([None, 0, 0.0, -0.0, False, 1, 1.0, True, "0", "", "null"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", ""]), inner, max_size=2),
    max_leaves=3,
)


@settings(max_examples=300)
@given(ALIKE, ALIKE)
def test_two_values_have_one_key_only_if_they_are_equal(one, other):
    assert (key_of(one) == key_of(other)) == (kinds(one) == kinds(other))


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


def test_the_hash_of_weights_is_that_of_their_content_wherever_they_lie(tmp_path):
    folder = model_folder(tmp_path / "a")
    before = weights_hash(folder)
    (folder / "tokenizer.json").write_text("other")
    assert weights_hash(folder) == before
    blob = tmp_path / "blobs" / files.sha256_file(folder / "model.safetensors")
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    snapshot = tmp_path / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(blob)
    assert weights_hash(snapshot) == before
    (tmp_path / "blobs" / "weights").write_bytes(b"weights")
    for place, target in (("linked", folder / "model.safetensors"), ("misnamed", tmp_path / "blobs" / "weights")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "model.safetensors").symlink_to(target)  # no blob by its name: known by what it leads to
        assert weights_hash(tmp_path / place) == before
    (folder / "model.safetensors").write_bytes(b"changed")
    assert weights_hash(folder) != before


def test_a_folder_without_safetensors_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match=r"no \.safetensors"):
        fingerprint(tmp_path)
