"""Canonical JSON of values, and fingerprints of folders of weights."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from pathlib import Path

from dlma import files
from dlma.errors import UserError

_PARTS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer.json",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "*.py",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.*",
    "additional_chat_templates/*",
)
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def canonical(value: object) -> str:
    """JSON with sorted keys and floats by repr; raises TypeError naming the path of what JSON cannot say."""
    _refuse(value, "value")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _refuse(value: object, path: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise TypeError(f"{path}: the name {name!r} is {type(name).__name__}, not text")
            _refuse(item, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse(item, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{path}: {value!r} is not a finite number")
    elif value is not None and not isinstance(value, str | int | float | bool):
        raise TypeError(f"{path}: {type(value).__name__} is not a JSON value")


def key_of(value: object) -> str:
    """16 hex digits that are equal for values with equal canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def fingerprint(folder: Path, cache: Path | None = None) -> str:
    """The sha256 of a model folder: weights, configs, tokenizer, chat templates, code of its own. Pickles are not read.

    A snapshot of the hub's cache is known by its commit and its blobs' names, without reading the blobs.
    Other contents are hashed once and remembered in `cache` by path, size and mtime.
    """
    found = sorted({path for part in _PARTS for path in folder.glob(part) if path.is_file()})
    if not any(path.suffix == ".safetensors" for path in found):
        raise UserError(f"{folder}: no .safetensors weights here; give a model folder in Hugging Face format")
    with files.memory(cache) as known:
        parts = [[path.relative_to(folder).as_posix(), _content(path, known)] for path in found]
    return hashlib.sha256(canonical([commit_of(folder), parts]).encode()).hexdigest()


def weights_hash(folder: Path, cache: Path | None = None) -> str:
    """The sha256 over the contents of a folder's *.safetensors: equal wherever they lie, whatever lies beside them."""
    with files.memory(cache) as known:
        contents = [_content(path, known).removeprefix("blob:") for path in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256(canonical(contents).encode()).hexdigest()


def commit_of(folder: Path) -> str | None:
    """The commit that a snapshot in the hub's cache is; None for any other folder."""
    is_snapshot = folder.parent.name == "snapshots" and _BLOB.fullmatch(folder.name)
    return folder.name if is_snapshot else None


def _content(path: Path, known: dict) -> str:
    if path.is_symlink():
        blob = Path(os.readlink(path))
        if blob.parent.name == "blobs" and _BLOB.fullmatch(blob.name):
            return f"blob:{blob.name}"
    return files.remembered_sha256(path, known)
