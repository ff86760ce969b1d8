"""The stage store: every stage is computed once, whole or not at all, and never read when damaged.

A stage lies in `<root>/<name>/<key>/`. Its key hashes what decides its content: name and VERSION, its own
scientific values, the keys of the stages it uses, and torch's and transformers' major.minor. Work happens in
`<key>.partial/`, which outlives a kill, so that the writer can go on from its shards and checkpoints; the
stage appears by one rename, under a file lock, with a manifest of what is in it. See `Store.make`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dlma import files
from dlma.errors import Unavailable, UserError
from dlma.store import manifest as manifests
from dlma.store import owned
from dlma.store.fingerprint import fingerprint, key_of, weights_hash
from dlma.store.machine import arithmetic, difference
from dlma.store.shards import SCRATCH
from dlma.store.stage import MANIFEST, Damage, Pruned, Stage, Writer, verify

# The version of each stage's code; raised when a change of code changes what the stage writes.
# tests/house/test_stage_versions.py fails until it is raised, or the change is confirmed harmless.
VERSION = {
    "tuned": 4,
    "prompts": 3,
    "contexts": 2,
    "pairs": 3,
    "scored": 4,
    "token_rewards": 4,
    "implicit": 4,
    "preflight": 2,
    "reward": 5,
    "rewarded": 3,
    "reward_model": 1,
    "policy": 5,
    "answers": 4,
    "evaluated": 3,
    "verdicts": 4,
    "metrics": 4,
}

KEYED_LIBRARIES = ("torch", "transformers")
ENCODED = ("transformers",)  # those of content that is encoded, and not computed: its tokenizers and chat templates


class Store:
    """The folder of all stages, and the counts of what one run computed and reused."""

    def __init__(
        self,
        root: str | Path,
        *,
        notify: Callable[[str], None] | None = None,
        patience: float = 3.0,
        layout: dict | None = None,
        machine: dict[str, str] | None = None,
        writes: bool = True,
    ):
        """layout: how rows are put together, where that moves last digits: part of the keys of what torch computes
        machine: where such stages are computed; one from another machine is used, with a line (dlma/store/machine.py)
        writes: whether this process may write there; of several that work together only one does
        """
        self.root = Path(root).absolute()
        self.writes = writes
        self.layout = layout or {}
        self.machine = machine or {}
        self._told: set[str] = set()
        self.notify = notify or _say
        self._patience = patience
        self._fate: dict[Path, str] = {}
        self._claimed = self._locks = False

    def __getstate__(self) -> dict[str, Any]:
        """The store as a process elsewhere has it: to be read."""
        return {**self.__dict__, "writes": False, "notify": _say}

    def claim(self) -> None:
        """Mark the folder as a store before anything is written there; refuses one that holds other things."""
        if self.writes and not self._claimed:
            with files.guarded(self.root, "store.root"):
                owned.claim(self.root, VERSION)
            self._claimed = True

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many stages of each name this store's user computed ("run") and found ("reused")."""
        counts: dict[str, dict[str, int]] = {"run": {}, "reused": {}}
        for folder, fate in self._fate.items():
            counts[fate][folder.parent.name] = counts[fate].get(folder.parent.name, 0) + 1
        return counts

    def fate(self, stage: Stage) -> str:
        """What became of a stage here: "run" or "reused"."""
        return self._fate[stage.folder]

    def stage(
        self, name: str, key: dict, *, uses: Sequence[Stage] = (), libraries: Sequence[str] = KEYED_LIBRARIES
    ) -> Stage:
        """The stage that these values decide; libraries: those that can change its content."""
        computed = "torch" in libraries
        outside = {**self.layout, **arithmetic()} if computed else {}
        identity = {
            "stage": name,
            "version": VERSION[name],
            "values": key,
            "uses": [[stage.name, stage.key] for stage in uses],
            "libraries": {lib: manifests.minor(lib) for lib in libraries},
            **({"outside": outside} if outside else {}),
        }
        machine = self.machine if computed else {}
        return Stage(self.root / name / key_of(identity), key, uses, self._recover, machine)

    def make(self, stage: Stage, write: Writer, *, config: dict | None = None) -> Stage:
        """Computes the stage unless it is there and whole.

        `write(folder)` fills the folder it is lent and may return notes for the manifest. The folder keeps
        what a killed run left, so `write` must go on from that; `folder/scratch/` is for shards and
        checkpoints and is removed at the end. `config` is the resolved config, already redacted.
        """
        stage.writer, stage.config = write, config
        if stage.done and not _damage(stage):
            return self._count(stage, "reused")
        with files.guarded(self.root, "store.root"), self.lock(stage.folder):
            damage = _damage(stage) if stage.done else None
            if damage:
                self._set_aside(stage, damage)
            if stage.done:
                return self._count(stage, "reused")
            self._compute(stage)
        return self._count(stage, "run")

    def _recover(self, stage: Stage, read: Callable[[], Any]) -> Any:
        """Reads again under the lock; what is still damaged is set aside and, if we know how, made anew."""
        if not self.writes:
            raise Unavailable(f"{stage.folder}: cannot be read as it was written; run the same command again")
        with files.guarded(self.root, "store.root"), self.lock(stage.folder):
            try:
                return read()
            except Damage as damage:
                if stage.done:
                    self._set_aside(stage, damage)
                if stage.writer is None:
                    raise Unavailable(f"{stage.folder}: {damage}; run the same command again") from damage
            self._compute(stage)
            self._fate[stage.folder] = "run"
            try:
                return read()
            except Damage as damage:
                raise UserError(f"{stage.folder}: damaged again at once ({damage}); check disk") from damage

    def fingerprint(self, folder: Path) -> str:
        """The fingerprint of a folder of weights, remembered in this store."""
        self.claim()
        return fingerprint(Path(folder), self._memory)

    def weights_hash(self, folder: Path) -> str:
        """The hash of a folder's weights alone; what this store remembers of them is not read again."""
        return weights_hash(folder, self._memory)

    @property
    def _memory(self) -> Path | None:
        """Where fingerprints are remembered; nowhere on a machine that does not have the store."""
        return self.root / "fingerprints.json" if self.writes or self.root.is_dir() else None

    def remembered(self, name: str, key: str, make: Callable[[], dict]) -> dict:
        """Facts that are the same for the same key, worked out once and remembered in `<root>/<name>.json`."""
        self.claim()
        path = self.root / f"{name}.json"
        known = files.read_checked(path)
        if key not in known:
            known[key] = make()
            with contextlib.suppress(OSError):  # without its memory it is slower, not wrong
                files.write_checked(path, known)
        return known[key]

    @contextmanager
    def lock(self, folder: Path, *, wait: bool = True) -> Iterator[bool]:
        """Holds the lock of a stage's folder; gives False, without it, if it is taken and `wait` is off."""
        self.claim()
        path = self.root / ".locks" / f"{folder.parent.name}-{folder.name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._require_locks(path.parent)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=self._patience if wait else 0)
        except Timeout:
            if not wait:
                yield False
                return
            self.notify(f"{folder.parent.name}/{folder.name}: another process is computing it; waiting")
            lock.acquire()
        try:
            yield True
        finally:
            lock.release()

    def _require_locks(self, folder: Path) -> None:
        """Raise Unavailable, before anything is computed, where the file system says that it has no locks."""
        if self._locks:
            return
        handle = os.open(folder / "probe", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as reason:
            raise Unavailable(
                f"{self.root}: its file system has no locks ({reason.strerror}), by which processes share a store; set "
                "store.root to a folder on one that has (docs/sweeps.md)"
            ) from None
        finally:
            os.close(handle)
        self._locks = True

    def _compute(self, stage: Stage) -> None:
        assert stage.writer is not None
        if stage.folder.exists():
            self._set_aside(stage, Damage(f"{MANIFEST} is missing"))
        started, partial = manifests.now(), stage.partial
        partial.mkdir(parents=True, exist_ok=True)
        _refuse_links(partial)
        files.remove_drafts(partial)  # that a kill left, before more room is wanted
        try:
            if not _is_whole(partial, stage.key):
                (partial / MANIFEST).unlink(missing_ok=True)
                notes = stage.writer(partial) or {}
                manifest = manifests.manifest(stage, VERSION[stage.name], notes, started)
                files.write_checked(partial / MANIFEST, manifest)
        finally:
            _remove_if_empty(partial)
        shutil.rmtree(partial / SCRATCH, ignore_errors=True)
        os.rename(partial, stage.folder)
        files.sync(stage.folder.parent)

    def _set_aside(self, stage: Stage, damage: Damage) -> None:
        if isinstance(damage, Pruned) and owned.is_stage_folder(stage.folder):
            self.notify(f"{stage}: {damage}; computing it again")
            shutil.rmtree(stage.folder)
            return
        count = 1
        while (aside := stage.folder.with_name(f"{stage.key}.damaged-{count}")).exists():
            count += 1
        os.rename(stage.folder, aside)
        self.notify(f"{stage} is damaged: {damage}; set aside as {aside.name}, to be computed again")

    def _count(self, stage: Stage, fate: str) -> Stage:
        if fate == "reused":
            self._tell_of_another_machine(stage)
        self._fate.setdefault(stage.folder, fate)
        return stage

    def _tell_of_another_machine(self, stage: Stage) -> None:
        """Once for each way in which machines differ."""
        then = stage.manifest.get("machine") or {}
        found = difference(then, stage.machine) if then and stage.machine else ""
        if found and found not in self._told:
            self._told.add(found)
            self.notify(f"{stage} was computed elsewhere ({found}): computed here its last digits may differ")


def _damage(stage: Stage) -> Damage | None:
    try:
        stage.check()
    except Damage as damage:
        return damage
    return None


def _is_whole(partial: Path, key: str) -> bool:
    """True if a kill came after the manifest was written and before the rename."""
    manifest = files.read_checked(partial / MANIFEST)
    if manifest.get("key") != key:
        return False
    try:
        for name, entry in manifest["files"].items():
            verify(partial / name, entry, once=False)
    except (Damage, KeyError):
        return False
    return True


def _refuse_links(partial: Path) -> None:
    """A link in a folder at work is no stage's: what it leads to would be written to and removed."""
    for path in (partial, *partial.rglob("*")):
        if path.is_symlink():
            raise UserError(f"{path}: is a symbolic link, which the store does not follow; remove it")


def _remove_if_empty(folder: Path) -> None:
    if not any(path.is_file() for path in folder.rglob("*")):
        shutil.rmtree(folder, ignore_errors=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
