"""A full or read-only disk is one line, and nothing is left half-written."""

import errno
import json
import os
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from store_kit import ROWS, never, no_larger_than, write_rows

from dlma import files
from dlma.errors import Unavailable, UserError
from dlma.store.store import Store


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(tmp_path, said):
    return Store(tmp_path / "store", notify=said.append)


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "No space left"), (errno.EDQUOT, "Disk quota"), (errno.EROFS, "cannot write here")],
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

    with pytest.raises(UserError, match="No space left"):
        store.make(store.stage("policy", {}), write)


@pytest.mark.parametrize("umask, wanted", [(0o022, 0o644), (0o077, 0o600)])
def test_what_a_library_wrote_for_its_owner_alone_is_as_open_as_its_folder(tmp_path, umask, wanted):
    before = os.umask(umask)
    try:
        with files.atomic_folder(tmp_path / "policy") as draft:
            save_file({"weight": torch.zeros(2)}, draft / "model.safetensors")
            (draft / "read_only").touch(0o444 & ~umask)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "policy").iterdir()}
    assert modes == {"model.safetensors": wanted, "read_only": 0o444 & ~umask}


def test_what_does_not_fit_names_the_place_and_how_much_was_wanted_and_fits_later(store):
    stage = store.stage("pairs", {})

    def write(folder):
        write_rows(folder)
        files.write_bytes(folder / "large.bin", bytes(3_000))

    with pytest.raises(Unavailable) as caught, no_larger_than(2_000):
        store.make(stage, write)
    line = str(caught.value)
    assert line.startswith(f"{store.root}: File too large (3,000 bytes wanted); make room, or set store.root to ")
    assert line.endswith("then run the same command again")
    assert [path.name for path in stage.partial.rglob("*")] == ["rows.parquet"]
    assert store.make(stage, write).table().equals(ROWS)


@pytest.mark.parametrize("native", ["safetensors", "torch"])
def test_a_model_that_does_not_fit_leaves_nothing_and_the_old_one_stays(tmp_path, native):
    def write(draft):
        tensors = {"weight": torch.zeros(4_000)}
        if native == "torch":
            with open(draft / "model", "wb") as out:
                torch.save(tensors, out)
        else:
            save_file(tensors, draft / "model")

    with files.atomic_folder(tmp_path / "policy") as draft:
        (draft / "old").touch()
    with (
        pytest.raises(OSError, match="File too large") as caught,
        no_larger_than(2_000),
        files.atomic_folder(tmp_path / "policy") as draft,
    ):
        write(draft)
    assert caught.value.filename == str(tmp_path / "policy")
    assert [path.name for path in tmp_path.rglob("*")] == ["policy", "old"]
    with files.atomic_folder(tmp_path / "policy") as draft:
        write(draft)
    assert [path.name for path in tmp_path.rglob("*")] == ["policy", "model"]


def test_of_two_disks_the_full_one_is_named(tmp_path, monkeypatch):
    room = {tmp_path / "store": 9, tmp_path / "temporary": 0}
    for place in room:
        place.mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(files.shutil, "disk_usage", lambda place: SimpleNamespace(free=room[place]))
    for full, option in (("temporary", "the environment variable TMPDIR"), ("store", "store.root")):
        with pytest.raises(Unavailable) as caught, files.guarded(tmp_path / "store", "store.root"):
            raise OSError(errno.ENOSPC, "No space left on device")  # by a library: without a place
        assert str(caught.value).startswith(f"{tmp_path / full}: No space left on device; make room, or set {option} ")
        room[tmp_path / "store"] = -1
    with pytest.raises(OSError, match="elsewhere"), files.guarded(tmp_path / "store", "store.root"):
        raise OSError(errno.ENOSPC, "No space left on device", "/elsewhere/cache")


def test_what_a_kill_left_of_drafts_is_removed_and_nothing_else(tmp_path):
    mine = [".notes.tmp", ".a.1-x.tmp", "b.1-2.tmp", ".rows.parquet.1-2.tmpx"]
    for name in [*mine, ".rows.parquet.1-2.tmp"]:
        (tmp_path / name).touch()
    (tmp_path / ".policy.12-345.tmp" / "deeper").mkdir(parents=True)
    (tmp_path / ".policy.12-345.tmp" / "deeper" / "model").touch()
    files.remove_drafts(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(mine)


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


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text().filter(lambda name: name != files.CHECKSUM), VALUES, max_size=4))
def test_what_is_written_with_a_checksum_is_read_without_it(value):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        files.write_checked(path, value)
        assert json.dumps(files.read_checked(path), sort_keys=True) == json.dumps(value, sort_keys=True)


def test_a_checksum_is_of_what_is_written_without_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "tell-nobody-of-this")
    files.write_checked(tmp_path / "a.json", {"note": "it is tell-nobody-of-this", "counts": {10: 1, 9: 2}})
    read = files.read_checked(tmp_path / "a.json")
    assert "nobody" not in (tmp_path / "a.json").read_text() and read["note"].startswith("it is ")
    assert read["counts"] == {"9": 2, "10": 1}


@pytest.mark.parametrize("content", [b"", b"[1]", b"nonsense", b'{"a": 1', b"\xff", None])
def test_what_is_no_json_object_is_read_as_an_empty_one(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    assert files.read_checked(tmp_path / "a.json") == files.read_json(tmp_path / "a.json") == {}


def test_an_object_of_before_there_were_checksums_is_taken_as_it_stands(tmp_path):
    (tmp_path / "a.json").write_text('{"name": "a", "files": {"b": {"sha256": "' + "0" * 64 + '"}}}')
    assert files.read_checked(tmp_path / "a.json")["name"] == "a"
    (tmp_path / "a.json").write_text('{"name": "a", "sha257": "' + "0" * 64 + '"}')
    assert files.read_checked(tmp_path / "a.json") == {}


def test_a_full_disk_is_named_by_its_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = re.escape(f"{tmp_path / 'outputs'}: No space left on device; make room")
    with pytest.raises(Unavailable, match=wanted), files.guarded(Path("outputs"), "hydra.run.dir"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "outputs/report.html")
