"""Tokenizers, one in a process for equal files: `tokenizers` keeps some memory of each that has encoded, for good.

A hundred kilobytes were seen (0.23.3), and a run loads the tokenizer of its base and of every policy.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

from dlma import files

ENDINGS = (".json", ".txt", ".model", ".jinja", ".tiktoken")
HELD = 16


@dataclass(frozen=True)
class _Files:
    folder: Path = field(compare=False)
    name: str  # messages say it
    content: tuple[tuple[str, str], ...]


def shared_tokenizer(folder: Path):
    """The tokenizer of a folder, of which no code is run; others use it too, so nobody changes it.

    raises: what transformers raises where the folder holds none
    """
    found = sorted([*folder.glob("*"), *folder.glob("additional_chat_templates/*")])
    found = [path for path in found if path.suffix in ENDINGS and path.is_file()]
    content = tuple((str(path.relative_to(folder)), files.sha256_file(path)) for path in found)
    return _load(_Files(folder, folder.name, content))


@functools.lru_cache(maxsize=HELD)
def _load(own: _Files):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(own.folder, local_files_only=True)
