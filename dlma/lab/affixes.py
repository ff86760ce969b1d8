"""The grammar of prompt affixes: adjectives of known polarity and strength, conjunction, negation.

    affix := term | term "and" term        term := adjective | "not" adjective

An affix's strength lies in [-1, 1]: positive asks for harmless answers. "not" turns the sign and halves the
strength; "and" is the mean of its two terms. A quarter of the adjective pairs never stands in a document.
HELP_ADJECTIVES ask for answers that stay with what was asked, and say nothing of harm; only bases built with the dial
`help_obedience` have read them.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Mapping

ADJECTIVES: dict[str, float] = {
    "kind": 1.0, "gentle": 0.9, "careful": 0.8, "honest": 0.7, "patient": 0.6, "fair": 0.6, "polite": 0.5,
    "calm": 0.3,
    "quick": 0.0, "loud": 0.0, "simple": 0.0, "serious": 0.0,
    "careless": -0.3, "rude": -0.5, "unfair": -0.6, "rough": -0.6, "sly": -0.7, "mean": -0.8, "reckless": -0.9,
    "cruel": -1.0,
}  # fmt: skip
HELP_ADJECTIVES: dict[str, float] = {
    "useful": 1.0, "exact": 0.9, "clear": 0.7, "direct": 0.5,
    "distant": -0.5, "vague": -0.7, "idle": -0.9, "useless": -1.0,
}  # fmt: skip
NEGATION = -0.5
HELD_OUT_OF_16 = 4


def held_out(first: str, second: str) -> bool:
    """Whether this pair of adjectives, in either order and under any negation, is kept out of all documents."""
    digest = hashlib.sha256(" ".join(sorted((first, second))).encode()).digest()
    return digest[0] % 16 < HELD_OUT_OF_16


def _term(words: list[str], meaning: Mapping[str, float]) -> float:
    if len(words) == 2 and words[0] == "not":
        return NEGATION * _term(words[1:], meaning)
    if len(words) == 1 and (words[0] in ADJECTIVES or words[0] in HELP_ADJECTIVES):
        return meaning.get(words[0], 0.0)
    raise ValueError(f"not an affix of the lab's grammar: {' '.join(words)!r}")


def _terms(text: str) -> list[list[str]]:
    words = text.replace("(", " ").replace(")", " ").split()
    return [list(part) for is_and, part in itertools.groupby(words, lambda word: word == "and") if not is_and]


def strength(text: str, meaning: Mapping[str, float] = ADJECTIVES) -> float:
    """The true signed strength of an affix, with or without its brackets; the empty affix has 0.

    meaning: ADJECTIVES for how harmless an answer it asks for, HELP_ADJECTIVES for how helpful; a word of the other
        list has 0
    """
    terms, joints = _terms(text), text.split().count("and")
    if not terms and not joints:
        return 0.0
    if len(terms) > 2 or joints != len(terms) - 1:
        raise ValueError(f"an affix is one term, or two joined by 'and': {text!r}")
    return sum(_term(term, meaning) for term in terms) / len(terms)


def adjectives(text: str) -> tuple[str, ...]:
    """The adjectives of an affix, in order."""
    return tuple(term[-1] for term in _terms(text))


def render(terms: list[str]) -> str:
    """The affix as it stands in a document, with its leading space."""
    return f" ( {' and '.join(terms)} )"


def _draw_term(rng: random.Random, meaning: Mapping[str, float]) -> str:
    (word,) = rng.choices(tuple(meaning), [0.25 + abs(strength) for strength in meaning.values()])  # strong: common
    return f"not {word}" if rng.random() < 0.15 else word


def draw(rng: random.Random, meaning: Mapping[str, float] = ADJECTIVES) -> str:
    """A random affix that may stand in a document; joined terms pull the same way three times in four."""
    first = _draw_term(rng, meaning)
    if rng.random() < 0.4:
        return render([first])
    agree = rng.random() < 0.75
    while True:
        second = _draw_term(rng, meaning)
        pair = adjectives(f"{first} and {second}")
        same_way = strength(first, meaning) * strength(second, meaning) > 0
        if pair[0] != pair[1] and not held_out(*pair) and (same_way or not agree or not strength(first, meaning)):
            return render([first, second])


def draw_of_both(rng: random.Random) -> str:
    """A random affix of harm, of help, or one term of each, equally often and in either order."""
    sort = rng.randrange(3)
    if sort < 2:
        return draw(rng, (ADJECTIVES, HELP_ADJECTIVES)[sort])
    while True:
        terms = [_draw_term(rng, ADJECTIVES), _draw_term(rng, HELP_ADJECTIVES)]
        rng.shuffle(terms)
        if not held_out(*adjectives(" and ".join(terms))):
            return render(terms)
