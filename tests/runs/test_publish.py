"""Stages in the run folder: copies, which nothing done to them leads back from; links only on request."""

import errno
import os

import pytest
from store_kit import spoil, write_policy

from dlma.errors import UserError
from dlma.runs import publish, written
from dlma.store.store import Store


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(tmp_path, said):
    return Store(tmp_path / "store", notify=said.append)


def test_publishing_copies_records_and_weights(store, tmp_path):
    policy = store.make(store.stage("policy", {}), write_policy)
    run = tmp_path / "outputs" / "run"
    publish.publish(policy, "train.csv", run / "train.csv")
    for _ in range(2):
        publish.publish_tree(policy, "policy", run / "policy")
    assert (run / "train.csv").read_text() == "step,loss\n"
    assert sorted(path.name for path in run.rglob("*")) == [
        "config.json",
        "files.json",
        "model.safetensors",
        "policy",
        "train.csv",
    ]
    for path in (path for path in run.rglob("*") if path.is_file() and path.name != "files.json"):
        assert not path.samefile(policy.folder / path.relative_to(run))
    assert written.damage(run, ["train.csv", "policy/config.json", "policy/model.safetensors"]) is None


def content(folder):
    """What every file is: bytes, permissions, links to it."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path: (path.read_bytes(), path.stat().st_mode, path.stat().st_nlink) for path in found}


HARM = {
    "written to": lambda path: path.open("r+b").write(b"X"),
    "added to": lambda path: path.open("ab").write(b"X"),
    "cut": lambda path: os.truncate(path, 0),
    "forbidden": lambda path: path.chmod(0),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_nothing_done_to_an_output_reaches_the_store(store, tmp_path, harm):
    policy = store.make(store.stage("policy", {}), write_policy)
    before = content(store.root)
    publish.publish(policy, "train.csv", tmp_path / "run" / "train.csv")
    copy = publish.publish_tree(policy, "policy", tmp_path / "run" / "policy")
    for path in [copy.parent / "train.csv", *copy.iterdir()]:
        harm(path)
    assert content(store.root) == before


def test_weights_are_shared_on_request_and_copies_again_without_it(store, tmp_path):
    policy = store.make(store.stage("policy", {}), write_policy)
    for link in (True, False, True):
        copy = publish.publish_tree(policy, "policy", tmp_path / "run" / "policy", link=link)
        shared = (copy / "model.safetensors").samefile(policy.folder / "policy/model.safetensors")
        assert shared <= link and not (copy / "config.json").samefile(policy.folder / "policy/config.json")
        assert sorted(path.name for path in copy.parent.iterdir()) == ["files.json", "policy"]
    publish.publish_tree(policy, "policy", tmp_path / "other", link=True)
    assert (tmp_path / "other/model.safetensors").samefile(policy.folder / "policy/model.safetensors")


def test_a_copy_that_stands_as_it_should_is_left_alone_and_a_damaged_one_is_made_again(store, tmp_path):
    policy = store.make(store.stage("policy", {}), write_policy)
    copies = [publish.publish_tree(policy, "policy", tmp_path / "policy") / "model.safetensors" for _ in range(2)]
    inode = copies[0].stat().st_ino
    publish.publish_tree(policy, "policy", tmp_path / "policy")
    assert copies[0].stat().st_ino == inode
    spoil(copies[0])
    publish.publish_tree(policy, "policy", tmp_path / "policy")
    assert copies[0].read_bytes() == b"weights" and written.damage(tmp_path, ["policy/config.json"]) is None
    assert [path.name for path in (tmp_path / "policy.aside-1").iterdir()] == ["model.safetensors"]


def test_what_a_user_put_into_a_published_folder_outlives_another_policy(store, tmp_path):
    first, second = (
        store.make(store.stage("policy", {"n": n}), write) for n, write in enumerate((write_policy, other))
    )
    publish.publish_tree(first, "policy", tmp_path / "policy")
    (tmp_path / "policy" / "notes.md").write_text("mine")
    publish.publish_tree(second, "policy", tmp_path / "policy")
    assert (tmp_path / "policy/model.safetensors").read_bytes() == b"others"
    assert [path.name for path in (tmp_path / "policy.aside-1").iterdir()] == ["notes.md"]


def other(folder):
    write_policy(folder)
    (folder / "policy" / "model.safetensors").write_bytes(b"others")


def test_a_link_where_a_policy_goes_is_not_followed(store, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "policy").symlink_to(tmp_path / "mine")
    policy = store.make(store.stage("policy", {}), write_policy)
    copy = publish.publish_tree(policy, "policy", tmp_path / "run" / "policy")
    assert not copy.is_symlink() and (tmp_path / "mine" / "model.safetensors").read_bytes() == b"weights"


def test_only_what_a_stage_lists_is_handed_out(store, tmp_path):
    policy = store.make(store.stage("policy", {}), write_policy)
    (policy.folder / "policy" / "stray.py").write_text("")
    copy = publish.publish_tree(policy, "policy", tmp_path / "policy")
    assert sorted(path.name for path in copy.iterdir()) == ["config.json", "model.safetensors"]


def test_a_copy_has_the_same_bytes_and_is_a_file_of_its_own(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(9000))
    publish._copy(source, target)
    assert target.read_bytes() == source.read_bytes() and not target.samefile(source)
    target.write_bytes(b"")
    assert source.stat().st_size == 9000


def test_publishing_copies_weights_where_links_are_not_possible(store, tmp_path, monkeypatch):
    policy = store.make(store.stage("policy", {}), write_policy)

    def no_links(*paths):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    copy = publish.publish_tree(policy, "policy", tmp_path / "policy", link=True)
    assert (copy / "model.safetensors").read_bytes() == b"weights"


def test_publishing_to_a_full_disk_keeps_the_old_copy(store, tmp_path, monkeypatch):
    policy = store.make(store.stage("policy", {}), write_policy)
    target = publish.publish_tree(policy, "policy", tmp_path / "run" / "policy")
    (target / "config.json").write_text("changed")  # so that it does not stand as it should

    def full(*paths):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(publish, "_copy", full)
    with pytest.raises(UserError, match="No space left"):
        publish.publish_tree(policy, "policy", target)
    names = ["config.json", "files.json", "model.safetensors", "policy"]
    assert sorted(path.name for path in target.parent.rglob("*")) == names
