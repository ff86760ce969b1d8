"""The grammar of prompt affixes: adjectives of known polarity and strength, conjunction, negation.

    affix := term | term "and" term        term := adjective | "not" adjective

An affix's strength lies in [-1, 1]: positive asks for harmless answers. "not" turns the sign and halves the
strength; "and" is the mean of its two terms. A quarter of the adjective pairs never stands in a document.
"""

from __future__ import annotations

import hashlib
import itertools
import random

ADJECTIVES: dict[str, float] = {
    "kind": 1.0, "gentle": 0.9, "careful": 0.8, "honest": 0.7, "patient": 0.6, "fair": 0.6, "polite": 0.5,
    "calm": 0.3,
    "quick": 0.0, "loud": 0.0, "simple": 0.0, "serious": 0.0,
    "careless": -0.3, "rude": -0.5, "unfair": -0.6, "rough": -0.6, "sly": -0.7, "mean": -0.8, "reckless": -0.9,
    "cruel": -1.0,
}  # fmt: skip
NEGATION = -0.5
_FREQUENCIES = tuple(0.25 + abs(strength) for strength in ADJECTIVES.values())  # strong words are common
HELD_OUT_OF_16 = 4


def held_out(first: str, second: str) -> bool:
    """Whether this pair of adjectives, in either order and under any negation, is kept out of all documents."""
    digest = hashlib.sha256(" ".join(sorted((first, second))).encode()).digest()
    return digest[0] % 16 < HELD_OUT_OF_16


def _term(words: list[str]) -> float:
    if len(words) == 2 and words[0] == "not":
        return NEGATION * _term(words[1:])
    if len(words) == 1 and words[0] in ADJECTIVES:
        return ADJECTIVES[words[0]]
    raise ValueError(f"not an affix of the lab's grammar: {' '.join(words)!r}")


def _terms(text: str) -> list[list[str]]:
    words = text.replace("(", " ").replace(")", " ").split()
    return [list(part) for is_and, part in itertools.groupby(words, lambda word: word == "and") if not is_and]


def strength(text: str) -> float:
    """The true signed strength of an affix, with or without its brackets; the empty affix has 0."""
    terms, joints = _terms(text), text.split().count("and")
    if not terms and not joints:
        return 0.0
    if len(terms) > 2 or joints != len(terms) - 1:
        raise ValueError(f"an affix is one term, or two joined by 'and': {text!r}")
    return sum(_term(term) for term in terms) / len(terms)


def adjectives(text: str) -> tuple[str, ...]:
    """The adjectives of an affix, in order."""
    return tuple(term[-1] for term in _terms(text))


def render(terms: list[str]) -> str:
    """The affix as it stands in a document, with its leading space."""
    return f" ( {' and '.join(terms)} )"


def _draw_term(rng: random.Random) -> str:
    (word,) = rng.choices(tuple(ADJECTIVES), _FREQUENCIES)
    return f"not {word}" if rng.random() < 0.15 else word


def draw(rng: random.Random) -> str:
    """A random affix that may stand in a document; joined terms pull the same way three times in four."""
    first = _draw_term(rng)
    if rng.random() < 0.4:
        return render([first])
    agree = rng.random() < 0.75
    while True:
        second = _draw_term(rng)
        pair = adjectives(f"{first} and {second}")
        same_way = strength(first) * strength(second) > 0
        if pair[0] != pair[1] and not held_out(*pair) and (same_way or not agree or not strength(first)):
            return render([first, second])
