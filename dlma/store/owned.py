"""What in a folder belongs to the store: the mark that it writes when it is made, and the folders of its stages.

Nothing else is ever counted or removed: no folder without a mark, no file of another name that lies in a store, and
nothing that is reached through a symbolic link.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection
from pathlib import Path

from dlma import files
from dlma.errors import UserError

MANIFEST = "manifest.json"
ROWS, LABELS, TRUTH, TRAIN = "rows.parquet", "labels.parquet", "truth.parquet", "train.csv"  # the files of stages
MARK = "dlma_store.json"
_SAYS = {"what": "a store of dlma: stages lie in <name>/<key>/"}
_KEY = re.compile(r"[0-9a-f]{16}")
_STAGE = re.compile(r"([0-9a-f]{16})(\.partial|\.damaged-\d+)?")
_BESIDE = {".locks", ".groups", "cache", "fingerprints.json", "costs.json"}  # what a store holds besides its stages
_NEUTRAL = {"lost+found", ".DS_Store", ".gitignore", ".gitkeep"}  # what an empty folder may hold


def is_marked(root: Path) -> bool:
    """Whether a store was made here."""
    return files.read_json(root / MARK) == _SAYS


def is_key(text: str) -> bool:
    """Whether it has the form of a stage's key."""
    return _KEY.fullmatch(text) is not None


def claim(root: Path, names: Collection[str]) -> None:
    """Mark a folder as a store, before anything else is written there; an older store is known by its manifests.

    names: those of the stages. Raises UserError for a folder that holds other things.
    """
    if not _recognised(root, names):
        files.write_json(root / MARK, _SAYS)
    elif not is_marked(root):
        with contextlib.suppress(OSError):  # an older store that cannot be written is read all the same
            files.write_json(root / MARK, _SAYS)


def look(root: Path, names: Collection[str]) -> None:
    """Raise UserError for a folder that holds other things than a store; nothing is written."""
    _recognised(root, names)


def _recognised(root: Path, names: Collection[str]) -> bool:
    """True for a store, False where none is yet; raises UserError for a folder of other things."""
    found = _entries(root)
    # The mark is looked for after the listing: another process that makes this store writes it before all else.
    if is_marked(root):
        return True
    if not found:
        return False
    if _is_older(root, found, names):
        return True
    raise UserError(f"{root}: holds files and is no store; name an empty or a new folder: store.root=...")


def _entries(root: Path) -> set[str]:
    found = {path.name for path in root.iterdir()} if root.is_dir() else set()
    return {name for name in found - _NEUTRAL if not name.startswith(f".{MARK}.")}


def _is_older(root: Path, found: set[str], names: Collection[str]) -> bool:
    """Whether a store of before the mark lies here: by a stage's manifest, or by holding nothing but a store's own."""
    stages = stage_folders(root, names)
    own = found <= _BESIDE | set(names) and (stages or ".locks" in found)
    return bool(own) or any(_has_manifest(folder) for folder in stages)


def _has_manifest(folder: Path) -> bool:
    manifest = files.read_checked(folder / MANIFEST)
    return (manifest.get("name"), manifest.get("key")) == (folder.parent.name, folder.name.split(".")[0])


def stage_folders(root: Path, names: Collection[str]) -> list[Path]:
    """The folders of stages, whole, partial and damaged, by name and key; symbolic links are none."""
    places = [root / name for name in sorted(names) if _is_folder(root / name)]
    return [path for place in places for path in sorted(place.iterdir()) if is_stage_folder(path)]


def is_stage_folder(path: Path) -> bool:
    return _STAGE.fullmatch(path.name) is not None and _is_folder(path)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
