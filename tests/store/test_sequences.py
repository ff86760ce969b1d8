"""Whatever is done to a store, in whatever order, the next start ends with the bytes of an undisturbed one."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_kit import seen_by_new_process, spoil

from dlma.store import shards
from dlma.store.stage import MANIFEST
from dlma.store.store import Store

CHAIN = ("prompts", "pairs", "policy")  # each uses the one before
ROWS_IN_ONE = 6
RAN = ("started", "ended", "git", "sha256")  # of a manifest: when and by which commit, and its own hash


class Killed(BaseException):
    """The process ends here, as by SIGKILL: nothing tidies up."""


class Work:
    """Computes a chain of stages by shards, and can be killed behind any of them."""

    def __init__(self, root, kill_after=None):
        self.root, self.left = root, kill_after

    def run(self):
        """Every stage of the chain, as one process makes them."""
        store, below = Store(self.root, notify=lambda line: None), ()
        for name in CHAIN:
            stage = store.stage(name, {"n": len(name)}, uses=below)
            store.make(stage, lambda folder, name=name, below=below: self._write(folder, name, below))
            stage.path()  # weights too, which `make` leaves to whoever reads them
            below = (stage,)

    def _write(self, folder, name, below):
        before = [row for stage in below for row in stage.table().column("id").to_pylist()]
        parts = folder / "scratch"
        parts.mkdir(exist_ok=True)
        for part in range(3):
            path = parts / f"{part}.json"
            if not path.exists():
                rows = [f"{name}-{part}-{i}" for i in range(ROWS_IN_ONE // 3)]
                path.write_text(json.dumps(rows))
                self._maybe_die()
        ids = [row for part in range(3) for row in json.loads((parts / f"{part}.json").read_text())]
        (folder / "model.safetensors").write_bytes("".join(before + ids).encode())
        self._maybe_die()
        shards.write_table(folder / "rows.parquet", pa.table({"id": before + ids}))
        return {"rows": len(ids)}

    def _maybe_die(self):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


def content(root):
    """The bytes of every file of every finished stage; of manifests, what does not say when they were made."""
    found = {}
    for name in CHAIN:
        (stage,) = (path for path in (root / name).iterdir() if "." not in path.name)
        for path in sorted(path for path in stage.rglob("*") if path.is_file()):
            data = path.read_bytes()
            if path.name == MANIFEST:
                data = {key: value for key, value in json.loads(data).items() if key not in RAN}
            found[f"{name}/{path.relative_to(stage)}"] = data
    return found


def harm(root, which, file, how):
    """One harm to one file of one stage, where there is such a one."""
    stages = sorted(path for name in CHAIN for path in (root / name).glob("*") if (path / MANIFEST).is_file())
    if not stages:
        return
    stage = stages[which % len(stages)]
    files = sorted(path for path in stage.rglob("*") if path.is_file())
    path = files[file % len(files)]
    match how:
        case "bit":
            spoil(path, at=path.stat().st_size // 2)
        case "cut":
            os.truncate(path, path.stat().st_size // 2)
        case "empty":
            os.truncate(path, 0)
        case "gone":
            path.unlink()
        case "folder":
            shutil.rmtree(stage)
        case "partial":
            stage.rename(stage.with_name(f"{stage.name}.partial"))


HARMS = ["bit", "cut", "empty", "gone", "folder", "partial"]
STEPS = st.one_of(
    st.just(("run",)),
    st.tuples(st.just("kill"), st.integers(0, 11)),
    st.tuples(st.just("harm"), st.integers(0, 2), st.integers(0, 2), st.sampled_from(HARMS)),
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed") / "store"
    Work(root).run()
    return content(root)


@settings(max_examples=20)
@given(steps=st.lists(STEPS, max_size=6))
def test_after_any_kills_and_damage_a_start_ends_with_the_bytes_of_an_undisturbed_one(undisturbed, steps):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        root = Path(folder) / "store"
        for kind, *rest in [*steps, ("run",)]:
            seen_by_new_process(patch)
            if kind == "harm":
                harm(root, *rest)
                continue
            try:
                Work(root, *rest).run()
            except Killed:
                assert kind == "kill"
        assert content(root) == undisturbed
