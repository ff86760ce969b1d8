"""From parsed rows to prompts: duplicates removed, a nested subset taken, splits given by prompt hash.

A prompt's split depends on its own text alone: not on the file, its order, the run's seed or the other
prompts, so no prompt is in two splits and a held-out prompt stays held out when the data grow. The one exception
is a set so small that training or test would be empty: then the nearest prompt is moved.
"""

from __future__ import annotations

import dataclasses
import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from heapq import nsmallest
from itertools import compress
from typing import Any

from dlma.data.text import BadRow, Tally, check_prompt, prompt_id
from dlma.errors import UserError
from dlma.records import Account, Prompt, Turn, content_id

DUPLICATE = "duplicate prompt"
BEYOND = "beyond data.max_prompts"
TOO_MANY_WORDS = "last turn longer than data.max_words"
SHORTENED = "oldest turns dropped to fit data.max_words"


@dataclasses.dataclass(frozen=True)
class Found:
    """One row's prompt and human pair, before it has an id and a split; `trimmed` says what was cut off.

    `chosen` alone is an answer without a rival, such as that of an instruction.
    """

    turns: list[Turn]
    category: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    trimmed: tuple[str, ...] = ()


Rows = Callable[[], Iterable[tuple[str, dict]]]
Parse = Callable[[dict], Found | list[Found]]  # a row may hold several pairs


def position(prompt: str, salt: str) -> float:
    """A prompt's fixed place in [0, 1), uniform over prompts and independent between salts."""
    return int(hashlib.sha256(f"{salt}\x1f{prompt}".encode()).hexdigest()[:13], 16) / 16**13


def split_of(prompt: str, *, validation_share: float, test_share: float) -> str:
    """The split of a prompt id: test, validation or train."""
    place = position(prompt, "split")
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"


def read_prompts(
    rows: Rows,
    parse: Parse,
    tally: Tally,
    *,
    source: str,
    max_words: int | None,
    max_prompts: int | None,
    validation_share: float,
    test_share: float,
    every_pair: bool = False,
) -> tuple[Prompts, Account]:
    """Prompts in file order and the account; `read` is `kept` plus everything dropped.

    rows: gives (where, row) of each, in order, as often as it is called
    every_pair: each human pair of a prompt is a prompt of its own, in the split of its text
    """
    sizes: dict[str, Any] = {"max_words": max_words, "validation_share": validation_share, "test_share": test_share}
    prompts = Prompts(rows, parse, tally, source=source, every_pair=every_pair, **sizes)
    prompts.limit(max_prompts, tally)
    prompts.fill()
    return prompts, tally.account


class Prompts:
    """The usable prompts in order, each once, with the split that its text gives it; what is not usable is counted.

    The rows are gone through once to count them, and anew each time that the prompts are. What is held of a prompt
    besides is its name, and the human pair that a later row brings it.
    """

    def __init__(
        self,
        rows: Rows,
        parse: Parse,
        tally: Tally,
        *,
        source: str,
        max_words: int | None,
        validation_share: float,
        test_share: float,
        every_pair: bool = False,
    ) -> None:
        self.source = source
        self._rows, self._parse = rows, parse
        self._max_words, self._every_pair = max_words, every_pair
        self._shares = {"validation_share": validation_share, "test_share": test_share}
        self._names, self._texts = array("Q"), array("Q")  # 64 bits in place of 16 hex digits
        self._brought: dict[int, Found] = {}
        self._moved: dict[str, str] = {}
        self._count(tally)
        self._taken = bytearray(b"\1") * len(self._names)
        tally.account.kept = len(self._names)
        tally.stop_if_too_many(source, "mend the rows or raise data.max_dropped")

    def __iter__(self) -> Iterator[Prompt]:
        count = 0
        for _, several in self._several():
            for found in several if isinstance(several, list) else []:
                name, text = self._named(found)
                if count == len(self._names) or int(name, 16) != self._names[count]:
                    continue  # it was there before
                count += 1
                if self._taken[count - 1]:
                    pair = self._brought.get(int(name, 16), found)
                    split = self._moved.get(text) or split_of(text, **self._shares)
                    yield Prompt(name, found.turns, split, found.category, pair.chosen, pair.rejected)
        if count < len(self._names):
            raise UserError(f"{self.source}: the rows have changed while they were read; start again")

    def __len__(self) -> int:
        return sum(self._taken)

    def limit(self, most: int | None, tally: Tally) -> None:
        """Leave all but the prompts with the smallest places: a smaller limit takes a subset of a larger one."""
        if most is None or len(self._names) <= most:
            return
        for _ in range(len(self._names) - most):
            tally.skip(BEYOND)
        tally.account.kept = most
        self._taken = bytearray(len(self._names))
        for place in nsmallest(most, range(len(self._names)), key=lambda i: position(_spelt(self._names[i]), "subset")):
            self._taken[place] = True

    def fill(self) -> None:
        """No empty test or training split: the prompt nearest to the border is moved, with all pairs of its text."""
        given: dict[str, str] = {}
        splits = set()
        for text in map(_spelt, compress(self._texts, self._taken)):
            given[text] = split_of(text, **self._shares)
            splits.add(given[text])
            if {"test", "train"} <= splits:
                return
        order = sorted(given, key=lambda text: position(text, "split"))
        if len(order) < 2:
            raise UserError(f"{self.source}: one usable prompt; it takes at least 2, one to train on, one to test on")
        for split, nearest in (("test", order[0]), ("train", order[-1])):
            if split not in {**given, **self._moved}.values():
                self._moved[nearest] = split

    def _several(self) -> Iterator[tuple[str, list[Found] | BadRow]]:
        """Where each row is, and what it holds, or why it cannot be used."""
        for where, row in self._rows():
            try:
                several: list[Found] | BadRow = _usable(self._parse(row), self._max_words)
            except BadRow as reason:
                several = reason
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
            yield where, several

    def _named(self, found: Found) -> tuple[str, str]:
        """The ids of the prompt and of its text."""
        text = prompt_id(found.turns)
        return content_id(text, found.chosen or "", found.rejected or "") if self._every_pair else text, text

    def _count(self, tally: Tally) -> None:
        paired, bare = set[int](), set[int]()  # names, with a human pair and without one
        for where, several in self._several():
            if isinstance(several, BadRow):
                tally.account.read += 1
                tally.drop(where, str(several))
                continue
            for found in several:
                tally.account.read += 1
                spelt, text = self._named(found)
                name, whole = int(spelt, 16), None not in (found.chosen, found.rejected)
                if name in paired or name in bare:
                    tally.skip(DUPLICATE)
                    if whole and name in bare:  # a prompt without a pair takes the one that came with its duplicate
                        self._brought[name] = found
                        bare.remove(name)
                        paired.add(name)
                    continue
                (paired if whole else bare).add(name)
                for reason in found.trimmed:
                    tally.trim(where, reason)
                self._names.append(name)
                self._texts.append(int(text, 16))


def _spelt(name: int) -> str:
    return f"{name:016x}"


def _usable(parsed: Found | list[Found], max_words: int | None) -> list[Found]:
    """What a row holds, each within the limit."""
    several = parsed if isinstance(parsed, list) else [parsed]
    for found in several:
        check_prompt(found.turns)
    return [_within(found, max_words) for found in several]


def _within(found: Found, max_words: int | None) -> Found:
    """The row with as many of its latest turns as the limit allows, beginning with a user turn."""
    if max_words is None:
        return found
    words = [len(turn.content.split()) for turn in found.turns]
    if sum(words) <= max_words:
        return found
    starts = [i for i, turn in enumerate(found.turns) if turn.role == "user" and sum(words[i:]) <= max_words]
    if not starts:
        raise BadRow(TOO_MANY_WORDS)
    return dataclasses.replace(found, turns=found.turns[starts[0] :], trimmed=(*found.trimmed, SHORTENED))
