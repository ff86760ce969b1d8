"""Stages in the run folder: copies of records, links to weights."""

import errno
import os

import pytest
from store_kit import write_policy

from dlma.errors import UserError
from dlma.runs import publish
from dlma.store.store import Store


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(tmp_path, said):
    return Store(tmp_path / "store", notify=said.append)


def test_publishing_copies_records_and_links_weights(store, tmp_path):
    policy = store.make(store.stage("policy", {}), write_policy)
    run = tmp_path / "outputs" / "run"
    publish.publish(policy, "train.csv", run / "train.csv")
    for _ in range(2):
        publish.publish_tree(policy, "policy", run / "policy")
    assert (run / "train.csv").read_text() == "step,loss\n"
    assert sorted(path.name for path in run.rglob("*")) == [
        "config.json",
        "model.safetensors",
        "policy",
        "train.csv",
    ]
    assert (run / "policy/model.safetensors").samefile(policy.folder / "policy/model.safetensors")
    assert not (run / "policy/config.json").samefile(policy.folder / "policy/config.json")


def test_publishing_copies_weights_where_links_are_not_possible(store, tmp_path, monkeypatch):
    policy = store.make(store.stage("policy", {}), write_policy)

    def no_links(*paths):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    copy = publish.publish_tree(policy, "policy", tmp_path / "policy")
    assert (copy / "model.safetensors").read_bytes() == b"weights"


def test_publishing_to_a_full_disk_keeps_the_old_copy(store, tmp_path, monkeypatch):
    policy = store.make(store.stage("policy", {}), write_policy)
    target = publish.publish_tree(policy, "policy", tmp_path / "run" / "policy")

    def full(*paths):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(UserError, match="no space left"):
        publish.publish_tree(policy, "policy", target)
    assert sorted(path.name for path in target.parent.rglob("*")) == ["config.json", "model.safetensors", "policy"]
