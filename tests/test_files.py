"""A full or read-only disk is one line, and nothing is left half-written."""

import errno
import os
from pathlib import Path

import pytest
from store_kit import ROWS, never, write_rows

from dlma import files
from dlma.errors import UserError
from dlma.store.store import Store


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(tmp_path, said):
    return Store(tmp_path / "store", notify=said.append)


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "no space left"), (errno.EDQUOT, "no space left"), (errno.EROFS, "cannot write here")],
)
def test_a_full_or_read_only_disk_is_one_line_and_leaves_nothing_half_written(store, monkeypatch, code, words):
    stage = store.stage("pairs", {})

    def replace(source, target):
        raise OSError(code, os.strerror(code), str(source), None, str(target))

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(UserError, match=words) as caught:
        store.make(stage, write_rows)
    assert str(store.root) in str(caught.value)
    assert "store.root" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path for path in store.root.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_full_disk_told_in_words_by_a_native_writer_is_known(store):
    def write(folder):
        raise RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })')

    with pytest.raises(UserError, match="no space left"):
        store.make(store.stage("policy", {}), write)


def test_a_root_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "store").write_text("")
    store = Store(tmp_path / "store")
    with pytest.raises(UserError, match="a file stands where a folder is needed"):
        store.make(store.stage("pairs", {}), write_rows)


def test_errors_that_are_not_about_the_store_pass_unchanged(store):
    def read_elsewhere(folder):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/data.jsonl")

    with pytest.raises(PermissionError, match="elsewhere"):
        store.make(store.stage("pairs", {}), read_elsewhere)

    def own_mistake(folder):
        (folder / "policy").mkdir()
        (folder / "policy").mkdir()

    with pytest.raises(FileExistsError):
        store.make(store.stage("policy", {}), own_mistake)


def test_a_finished_stage_is_read_from_a_read_only_root(store, tmp_path, monkeypatch):
    store.make(store.stage("pairs", {}), write_rows)
    monkeypatch.setattr(Path, "mkdir", lambda *a, **k: pytest.fail("wrote to the store"))
    again = Store(tmp_path / "store")
    assert again.make(again.stage("pairs", {}), never).table().equals(ROWS)


def test_atomic_keeps_the_old_file_when_the_new_one_fails(tmp_path):
    path = tmp_path / "a.json"
    files.write_bytes(path, b"old")
    with pytest.raises(ValueError, match="stop"), files.atomic(path) as draft:
        draft.write_bytes(b"new, ha")
        raise ValueError("stop")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
