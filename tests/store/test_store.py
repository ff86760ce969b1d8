"""The laws of the stage store: keys, one computation, manifests, damage."""

import errno
import hashlib
import json
import os
import shutil
from threading import Event, Thread

import pyarrow as pa
import pytest
from store_kit import ROWS, never, seen_by_new_process, spoil, write_policy, write_rows

from dlma import files
from dlma.errors import Unavailable, UserError
from dlma.store import manifest as manifests
from dlma.store import store as stage_store
from dlma.store.fingerprint import fingerprint, weights_hash
from dlma.store.machine import ARITHMETIC
from dlma.store.stage import Damage
from dlma.store.store import Store


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(tmp_path, said, monkeypatch):
    for name in ARITHMETIC:  # what is set where the tests run would belong to the keys
        monkeypatch.delenv(name, raising=False)
    return Store(tmp_path / "store", notify=said.append)


def test_the_key_is_the_hash_of_what_decides_the_content(store, monkeypatch):
    monkeypatch.setattr(manifests, "minor", {"torch": "2.13", "transformers": "5.23"}.get)
    monkeypatch.setitem(stage_store.VERSION, "pairs", 7)
    stage = store.stage("pairs", {"temperature": 1.0}, uses=[])
    text = (
        '{"libraries":{"torch":"2.13","transformers":"5.23"},"stage":"pairs","uses":[],'
        '"values":{"temperature":1.0},"version":7}'
    )
    assert stage.key == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert stage.folder == store.root / "pairs" / stage.key


def test_every_ingredient_changes_the_key_and_nothing_else_does(store, monkeypatch):
    prompts = store.stage("prompts", {"n": 1})
    other = store.stage("prompts", {"n": 2})

    def key(name="pairs", values=None, uses=(prompts,), **kwargs):
        return store.stage(name, values or {"seed": 0, "lr": 1.0}, uses=uses, **kwargs).key

    first = key()
    assert key(values={"lr": 1.0, "seed": 0}) == first
    changed = [
        key(name="scored"),
        key(values={"seed": 1, "lr": 1.0}),
        key(values={"seed": False, "lr": 1.0}),
        key(uses=()),
        key(uses=(other,)),
        key(uses=(prompts, other)),
        key(uses=(other, prompts)),
        key(libraries=()),
    ]
    present = stage_store.VERSION["pairs"]
    monkeypatch.setitem(stage_store.VERSION, "pairs", present + 1)
    changed.append(key())
    monkeypatch.setitem(stage_store.VERSION, "pairs", present)
    monkeypatch.setattr(manifests, "_version", lambda name: "9.9.1")
    changed.append(key())
    monkeypatch.setattr(manifests, "_version", lambda name: "9.9.2+cpu")
    assert key() == changed[-1], "a patch release of torch is no new key"
    assert len({first, *changed}) == len(changed) + 1


def test_an_unknown_stage_name_is_an_error(store):
    with pytest.raises(KeyError):
        store.stage("pears", {})


def test_a_stage_is_computed_once_and_counted(store, tmp_path):
    pairs = store.make(store.stage("pairs", {"n": 1}), write_rows)
    store.make(store.stage("pairs", {"n": 1}), never)
    assert store.counts == {"run": {"pairs": 1}, "reused": {}}
    again = Store(tmp_path / "store")
    again.make(again.stage("pairs", {"n": 1}), never)
    again.make(again.stage("pairs", {"n": 2}), write_rows)
    assert again.counts == {"run": {"pairs": 1}, "reused": {"pairs": 1}}
    assert [again.fate(again.stage("pairs", {"n": n})) for n in (1, 2)] == ["reused", "run"]
    assert pairs.table().equals(ROWS)


def test_nothing_is_at_the_stages_place_until_all_is(store):
    stage = store.stage("pairs", {})

    def write(folder):
        write_rows(folder)
        assert folder != stage.folder
        assert not stage.folder.exists()
        assert not stage.done

    store.make(stage, write)
    assert stage.done
    assert not stage.partial.exists()


def test_reading_a_stage_that_was_not_made_or_a_file_it_lacks_is_a_bug_not_damage(store):
    stage = store.stage("pairs", {})
    with pytest.raises(LookupError, match="not been made"):
        stage.table()
    store.make(stage, write_rows)
    with pytest.raises(LookupError, match=r"no row\.parquet"):
        stage.table("row.parquet")
    with pytest.raises(LookupError, match="no policy"):
        stage.path("policy")
    assert stage.done


def test_a_fact_is_worked_out_once_for_a_key(store):
    asked = []

    def make():
        asked.append(1)
        return {"n": len(asked)}

    assert store.remembered("facts", "a", make) == store.remembered("facts", "a", never) == {"n": 1}
    assert Store(store.root).remembered("facts", "a", never) == {"n": 1}
    assert store.remembered("facts", "b", make) == {"n": 2}


def test_a_file_system_without_locks_is_told_in_a_line_before_anything_is_computed(store, monkeypatch):
    def none(handle, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as without:
        without.setattr(stage_store.fcntl, "flock", none)
        with pytest.raises(
            UserError, match=r"store: its file system has no locks \(No locks available\), .* store.root"
        ):
            store.make(store.stage("prompts", {"n": 3}), never)
    store.make(store.stage("prompts", {"n": 3}), write_rows)
    assert Store(store.root).make(store.stage("prompts", {"n": 3}), never).done


def test_the_manifest_says_where_the_stage_came_from(store):
    prompts = store.make(store.stage("prompts", {"n": 3}), write_rows)
    stage = store.stage("pairs", {"seed": 0}, uses=[prompts])

    def write(folder):
        write_rows(folder)
        (folder / "scratch").mkdir()
        (folder / "scratch" / "step.ckpt").write_bytes(b"x")
        (folder / ".rows.parquet.1-2.tmp").write_bytes(b"left by a kill")
        return {"dropped": {"empty": 2}}

    store.make(stage, write, config={"seed": 0, "key": "***"})
    manifest = json.loads((stage.folder / "manifest.json").read_text())
    data = (stage.folder / "rows.parquet").read_bytes()
    assert manifest["files"] == {
        "rows.parquet": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "rows": 3}
    }
    assert sorted(path.name for path in stage.folder.iterdir()) == ["manifest.json", "rows.parquet"]
    assert (manifest["name"], manifest["key"], manifest["version"]) == (
        "pairs",
        stage.key,
        stage_store.VERSION["pairs"],
    )
    assert manifest["uses"] == [{"name": "prompts", "key": prompts.key}]
    assert manifest["config"] == {"seed": 0, "key": "***"}
    assert manifest["notes"] == stage.notes == {"dropped": {"empty": 2}}
    assert manifest["libraries"]["pyarrow"] == pa.__version__
    assert manifest["git"] is None or set(manifest["git"]) == {"commit", "dirty"}
    assert manifest["started"] <= manifest["ended"]
    assert os.uname().nodename not in manifest.values()


def test_without_git_the_manifest_says_none(store, monkeypatch):
    monkeypatch.setenv("PATH", "")
    manifests._git.cache_clear()
    try:
        stage = store.make(store.stage("pairs", {}), write_rows)
    finally:
        manifests._git.cache_clear()
    assert stage.manifest["git"] is None


def test_an_interrupted_writer_finds_what_it_left_and_a_failed_empty_one_leaves_nothing(store):
    stage = store.stage("policy", {})

    def stop(folder):
        (folder / "scratch").mkdir()
        (folder / "scratch" / "step.ckpt").write_bytes(b"half-way")
        raise KeyboardInterrupt

    def go_on(folder):
        assert (folder / "scratch" / "step.ckpt").read_bytes() == b"half-way"
        write_policy(folder)

    with pytest.raises(KeyboardInterrupt):
        store.make(stage, stop)
    assert not stage.done
    store.make(stage, go_on)
    assert stage.path("policy") == stage.folder / "policy"

    def fail(folder):
        (folder / "scratch").mkdir()
        raise ValueError("no luck")

    empty = store.stage("policy", {"n": 2})
    with pytest.raises(ValueError, match="no luck"):
        store.make(empty, fail)
    assert not empty.partial.exists()


def test_killed_between_manifest_and_rename_the_work_is_not_repeated(store, monkeypatch):
    stage = store.stage("pairs", {})
    rename = os.rename

    def killed(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        store.make(stage, write_rows)
    monkeypatch.setattr(os, "rename", rename)
    store.make(stage, never)
    assert stage.table().equals(ROWS)


def test_a_partial_folder_whose_files_do_not_match_its_manifest_is_computed_again(store, monkeypatch):
    stage = store.stage("pairs", {})
    stage.partial.mkdir(parents=True)
    files.write_json(stage.partial / "manifest.json", {"key": stage.key, "files": {"rows.parquet": {}}})
    store.make(stage, write_rows)
    assert stage.table().equals(ROWS)


@pytest.mark.parametrize("harm", ["bit", "cut", "gone", "manifest", "foreign"])
def test_damage_is_found_by_make_set_aside_and_computed_again(store, tmp_path, said, monkeypatch, harm):
    stage = store.make(store.stage("pairs", {}), write_rows)
    path = stage.folder / "rows.parquet"
    if harm == "bit":
        spoil(path)
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif harm == "gone":
        path.unlink()
    elif harm == "manifest":
        (stage.folder / "manifest.json").write_text('{"key": "')
    else:
        files.write_json(stage.folder / "manifest.json", {**stage.manifest, "key": "0" * 16})
    seen_by_new_process(monkeypatch)
    again = Store(tmp_path / "store", notify=said.append)
    fresh = again.make(again.stage("pairs", {}), write_rows)
    assert again.counts == {"run": {"pairs": 1}, "reused": {}}
    assert fresh.table().equals(ROWS)
    assert (store.root / "pairs" / f"{stage.key}.damaged-1").is_dir()
    assert len(said) == 1
    assert "damaged" in said[0]
    assert "\n" not in said[0]


def test_every_byte_of_a_manifest_counts(store):
    stage = store.make(store.stage("pairs", {"n": 1}), write_rows, config={"note": 'spaces and \\ " too'})
    path = stage.folder / "manifest.json"
    data = path.read_bytes()
    assert json.loads(data)["sha256"] and "sha256" not in stage.manifest and stage.check() is None
    unseen = []
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        try:
            stage.check()
            unseen.append((at, data[at - 9 : at + 9]))
        except Damage:
            pass
    assert unseen == []


def test_a_manifest_of_before_there_were_checksums_is_used(store):
    stage = store.make(store.stage("pairs", {}), lambda folder: write_rows(folder) or {"seen": 3})
    files.write_json(stage.folder / "manifest.json", stage.manifest)
    assert "sha256" not in json.loads((stage.folder / "manifest.json").read_text())
    again = store.make(store.stage("pairs", {}), never)
    assert again.notes == {"seen": 3} and again.table().equals(ROWS)


def test_notes_of_a_damaged_manifest_are_made_again(store, said):
    stage = store.make(store.stage("pairs", {}), lambda folder: write_rows(folder) or {"seen": 3})
    spoil(stage.folder / "manifest.json", at=-30)
    assert stage.notes == {"seen": 3} and store.counts["run"] == {"pairs": 1}
    assert len(said) == 1 and "manifest.json is damaged" in said[0]


def test_a_store_that_is_removed_while_a_run_uses_it_is_made_again(store):
    prompts = store.make(store.stage("prompts", {}), write_rows)
    pairs = store.make(store.stage("pairs", {}, uses=[prompts]), lambda folder: write_rows(folder))
    shutil.rmtree(store.root)
    assert pairs.table().equals(ROWS) and prompts.table().equals(ROWS)


def test_a_record_is_verified_at_each_read_and_never_read_damaged(store, said):
    stage = store.make(store.stage("pairs", {}), write_rows)
    for count in (1, 2):
        spoil(stage.folder / "rows.parquet")
        assert stage.table().equals(ROWS)
        assert (store.root / "pairs" / f"{stage.key}.damaged-{count}").is_dir()
    assert store.counts == {"run": {"pairs": 1}, "reused": {}}
    assert len(said) == 2


def test_a_reader_that_cannot_compute_says_what_to_do_and_the_next_run_does_it(store):
    store.make(store.stage("pairs", {}), write_rows)
    reader = store.stage("pairs", {})
    spoil(reader.folder / "rows.parquet")
    with pytest.raises(UserError, match="run the same command again"):
        reader.table()
    assert store.make(reader, write_rows).table().equals(ROWS)


def test_a_process_that_may_not_write_leaves_damage_as_it_is(store):
    stage = store.make(store.stage("pairs", {}), write_rows)
    spoil(stage.folder / "rows.parquet")
    with pytest.raises(Unavailable, match="run the same command again"):
        Store(store.root, writes=False).stage("pairs", {}).table()
    assert [path.name for path in stage.folder.parent.iterdir()] == [stage.key]


def test_a_record_that_is_gone_is_made_again_with_a_line(tmp_path, capsys):
    store = Store(tmp_path / "store")
    stage = store.make(store.stage("pairs", {}), write_rows)
    (stage.folder / "rows.parquet").unlink()
    assert stage.table().equals(ROWS)
    assert "is damaged: rows.parquet is missing" in capsys.readouterr().err


def test_what_another_computes_is_waited_for_with_a_line_and_not_computed_again(store):
    begun, told, lines = Event(), Event(), []

    def write_once_told(folder):
        begun.set()
        assert told.wait(60)
        write_rows(folder)

    other = Thread(target=store.make, args=(store.stage("pairs", {}), write_once_told))
    other.start()
    assert begun.wait(60)
    waiting = Store(store.root, notify=lambda line: lines.append(line) or told.set(), patience=0.0)
    made = waiting.make(waiting.stage("pairs", {}), never)
    other.join()
    assert lines == [f"{made}: another process is computing it; waiting"]
    assert waiting.counts == {"run": {}, "reused": {"pairs": 1}} and made.table().equals(ROWS)


def test_what_a_store_has_hashed_it_remembers(store, tmp_path, monkeypatch):
    weights = tmp_path / "model" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    os.utime(weights, (1e9, 1e9))
    found = store.fingerprint(weights.parent), store.weights_hash(weights.parent)
    assert found == (fingerprint(weights.parent), weights_hash(weights.parent))
    monkeypatch.setattr(files, "sha256_file", lambda path: pytest.fail("read again"))
    assert (store.fingerprint(weights.parent), store.weights_hash(weights.parent)) == found


def test_a_library_that_is_not_there_is_absent_in_manifest_and_key(store, monkeypatch):
    monkeypatch.setattr(manifests, "_LIBRARIES", ("torch", "no-such-library-at-all"))
    stage = store.make(store.stage("pairs", {}), write_rows)
    assert stage.manifest["libraries"]["no-such-library-at-all"] == "absent"
    assert manifests.minor("no-such-library-at-all") == "absent" and stage.manifest["libraries"]["torch"] != "absent"


def test_weights_are_verified_once_per_process_and_their_records_each_time(store, said, monkeypatch):
    stage = store.make(store.stage("policy", {}), write_policy)
    hashed = []
    whole = files.sha256_file
    monkeypatch.setattr(files, "sha256_file", lambda path: hashed.append(path.name) or whole(path))
    stage.path("policy")
    stage.path("policy")
    assert sorted(hashed) == ["config.json", "config.json", "model.safetensors"]
    spoil(stage.folder / "policy" / "model.safetensors")
    seen_by_new_process(monkeypatch)
    assert (stage.path("policy") / "model.safetensors").read_bytes() == b"weights"
    assert len(said) == 1


def test_a_writer_that_writes_damage_again_and_again_ends_in_one_line(store, monkeypatch):
    stage = store.make(store.stage("pairs", {}), write_rows)
    monkeypatch.setattr(files, "sha256_bytes", lambda data: "another")
    with pytest.raises(UserError, match="damaged again at once"):
        stage.table()
