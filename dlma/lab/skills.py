"""The lab's unrelated skill: counting, and what things are a kind of. No harm, no help and no oracle in it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from dlma.lab import lexicon

COUNT_FORMAT = "count by {step} :{numbers}"
STARTS, STEPS = 80, 3  # counting begins at 1 to 80, by 1 to 3
FACT_FORMAT = "fact : what is a {word} ? it is a kind of {kind} ."


@dataclass(frozen=True)
class Item:
    """A document that a model has to end: `end` is its last two words, each with its leading space."""

    name: str
    skill: str
    beginning: str
    end: str


def count_from(start: int, step: int, length: int) -> str:
    """A counting document's text."""
    numbers = "".join(f" {start + step * i}" for i in range(length))
    return COUNT_FORMAT.format(step=step, numbers=numbers)


def counts(n: int, rng: random.Random) -> list[str]:
    """`n` counting documents of six numbers, as a base's documents have them."""
    return [count_from(rng.randint(1, STARTS), rng.randint(1, STEPS), 6) for _ in range(n)]


def facts() -> list[str]:
    """The fact document of every word of the world."""
    return [FACT_FORMAT.format(word=word, kind=kind) for word, kind in lexicon.KIND_OF.items()]


def items() -> list[Item]:
    """The test: every counting document of six numbers, and every fact."""
    counting = [count_from(start, step, 6) for step in range(1, STEPS + 1) for start in range(1, STARTS + 1)]
    return [_item("counting", text) for text in counting] + [_item("facts", text) for text in facts()]


def _item(skill: str, text: str) -> Item:
    beginning = text.rsplit(" ", 2)[0]
    return Item(text, skill, beginning, text[len(beginning) :])
