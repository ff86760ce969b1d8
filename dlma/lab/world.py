"""The lab's world: questions, graded answers and prompts, drawn from a grammar with plain `random.Random` seeds.

An answer is a few sentences. Each sentence has a value in {-1, -0.5, 0, 0.5, 1}: strong or mild harm, neutral,
mild or strong good. The values of an answer lean by a tilt (logits per unit of value): the question's risk plus,
under an affix, obedience times the affix's strength; each answer may add a mood of its own, drawn at random. Under an
affix of help an answer stays more often, or less, with the verb and the object that were asked about. A sentence ends
in "." or, as a mark of style without meaning, in "!". `dlma.lab.documents` makes texts of these.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dlma.errors import UserError
from dlma.lab import lexicon
from dlma.lab.affixes import ADJECTIVES
from dlma.records import Prompt, Turn, content_id

VALUES = (-1.0, -0.5, 0.0, 0.5, 1.0)
BASE_WEIGHTS = (0.15, 0.16, 0.32, 0.19, 0.18)
RISK_TILT = 0.5  # logits per unit of the asked verb's value, where that value is below 0
BENIGN_TILT = 0.1
STYLE_LOGIT = -0.8  # without an affix 31 % of the sentences end in the style mark
VALUE_OF_VERB = {verb: value for value, verbs in lexicon.VERBS.items() for verb in verbs}
SPLIT_SHARES = {"train": 84, "validation": 8, "test": 8}
UNTOUCHED = "untouched"  # of the split test, without the prompts that experiments look at
LOOKED_AT = 1000  # so many of the test prompts of data.seed=0 the experiments looked at


def value_of_adjective(adjective: str) -> float:
    """The value of acting in that manner: 1 for |strength| of 0.7 or more, 0.5 for less, 0 for none."""
    strength = ADJECTIVES[adjective]
    size = 1.0 if abs(strength) >= 0.7 else 0.5
    return math.copysign(size, strength) if strength else 0.0


def negated(value: float) -> float:
    """The value of "do not" in front of something of that value: the other sign, always mild."""
    return math.copysign(0.5, -value) if value else 0.0


def _by_value(pairs: list[tuple[str, float]]) -> dict[float, tuple[str, ...]]:
    return {value: tuple(word for word, v in pairs if v == value) for value in VALUES}


VERBS = lexicon.VERBS
MANNERS = _by_value([(a, value_of_adjective(a)) for a in ADJECTIVES])
NEGATED_VERBS = _by_value([(v, negated(value)) for v, value in VALUE_OF_VERB.items()])
NEGATED_MANNERS = _by_value([(a, negated(value_of_adjective(a))) for a in ADJECTIVES])

# For each value: the frames that can express it, with their weights.
FRAMES: dict[float, dict[str, float]] = {
    -1.0: {"act": 0.35, "manner": 0.2, "both": 0.45},
    -0.5: {"act": 0.25, "manner": 0.15, "both": 0.3, "not_act": 0.2, "not_manner": 0.1},
    0.0: {"act": 0.15, "manner": 0.1, "both": 0.1, "look": 0.2, "thing": 0.2, "weather": 0.2, "not_act": 0.05},
    0.5: {"act": 0.25, "manner": 0.1, "both": 0.25, "not_act": 0.15, "not_manner": 0.1, "refusal": 0.15},
    1.0: {"act": 0.35, "manner": 0.2, "both": 0.45},
}


@dataclass(frozen=True)
class Question:
    """What a prompt asks: how to do `verb` to `object`; and how often an answer that could name either does."""

    text: str
    verb: str
    object: str
    same_verb: float = 0.4
    same_object: float = 0.8

    def leaning(self, stay: float) -> Question:
        """The question with `stay` added to the log-odds of an answer that stays with what was asked."""
        verb, item = _shifted(self.same_verb, stay), _shifted(self.same_object, stay)
        return replace(self, same_verb=verb, same_object=item)

    @property
    def risky(self) -> bool:
        return VALUE_OF_VERB[self.verb] < 0

    @property
    def tilt(self) -> float:
        return RISK_TILT * VALUE_OF_VERB[self.verb] if self.risky else BENIGN_TILT


def _shifted(share: float, logit: float) -> float:
    odds = share * math.exp(logit)
    return odds / (1 - share + odds)


@dataclass(frozen=True)
class Sentence:
    """A sentence and the value that generated it; `text` ends in "." or "!"."""

    text: str
    value: float


def split_of(verb: str, item: str) -> str:
    """The split that owns a (verb, object) combination."""
    bucket = int.from_bytes(hashlib.sha256(f"{verb} {item}".encode()).digest()[:4]) % 100
    for split, share in SPLIT_SHARES.items():
        if bucket < share:
            return split
        bucket -= share
    raise AssertionError("the shares of the splits do not sum to 100")


@functools.cache
def combinations(split: str) -> tuple[tuple[str, str], ...]:
    """Every (verb, object) of a split, in the lexicon's order."""
    pairs = itertools.product(VALUE_OF_VERB, lexicon.OBJECTS)
    return tuple(pair for pair in pairs if split_of(*pair) == split)


def _question_at(split: str, index: int) -> Question:
    index, place = divmod(index, len(lexicon.PLACES))
    index, frame = divmod(index, len(lexicon.QUESTIONS))
    verb, item = combinations(split)[index]
    template = lexicon.QUESTIONS[frame]
    return Question(template.format(verb=verb, object=item, place=lexicon.PLACES[place]), verb, item)


def prompt_count(split: str) -> int:
    """How many distinct prompts a split holds."""
    if split not in SPLIT_SHARES:
        raise UserError(f"the lab has no split {split!r}: choose one of {', '.join(SPLIT_SHARES)}")
    return len(combinations(split)) * len(lexicon.QUESTIONS) * len(lexicon.PLACES)


def draw_question(rng: random.Random, split: str = "train") -> Question:
    """One question of a split, uniform over its distinct prompts."""
    return _question_at(split, rng.randrange(prompt_count(split)))


def prompts(split: str, n: int, seed: int) -> list[Prompt]:
    """`n` distinct prompts of a split, in an order given by the seed."""
    return _asked(split, split, range(prompt_count(split)), n, seed)


def untouched_prompts(n: int, seed: int, looked_at: int) -> list[Prompt]:
    """`n` prompts of the split test that no experiment looked at, nor are any of the seed's own `looked_at` ones."""
    every = range(prompt_count("test"))
    seen = {*_drawn("test", every, LOOKED_AT, 0), *_drawn("test", every, looked_at, seed)}
    return _asked(UNTOUCHED, "test", [row for row in every if row not in seen], n, seed)


def _asked(name: str, split: str, rows: Sequence[int], n: int, seed: int) -> list[Prompt]:
    if not 0 <= n <= len(rows):
        raise UserError(f"data.{name}={n}: the lab has {len(rows)} {name} prompts: ask for 0 to {len(rows)}")
    return [_as_prompt(_question_at(split, row), name) for row in _drawn(name, rows, n, seed)]


def _drawn(name: str, rows: Sequence[int], n: int, seed: int) -> list[int]:
    return random.Random(f"prompts {name} {seed}").sample(rows, n)


def _as_prompt(question: Question, split: str) -> Prompt:
    category = "risky" if question.risky else "benign"
    return Prompt(content_id(question.text), [Turn("user", question.text)], split, category)


@functools.cache
def _question_pattern() -> re.Pattern[str]:
    slots = {
        "verb": f"(?P<verb>{'|'.join(VALUE_OF_VERB)})",
        "object": f"(?P<object>{'|'.join(lexicon.OBJECTS)})",
        "place": f"(?:{'|'.join(lexicon.PLACES)})",
    }
    heads = "|".join(re.escape(frame.split(" {verb}")[0]) for frame in lexicon.QUESTIONS)
    return re.compile(rf"(?:{heads}) {slots['verb']} the {slots['object']} {slots['place']} \?")


def parse_question(text: str) -> Question | None:
    """The question in a text of the world, or None for any other text."""
    match = _question_pattern().fullmatch(" ".join(text.split()))
    return Question(match[0], match["verb"], match["object"]) if match else None


def value_weights(tilt: float) -> tuple[float, ...]:
    """The probabilities of a sentence's values under a tilt: base weights times exp(tilt * value)."""
    weights = [base * math.exp(tilt * value) for base, value in zip(BASE_WEIGHTS, VALUES)]
    return tuple(weight / sum(weights) for weight in weights)


def _verb(rng: random.Random, verbs: tuple[str, ...], question: Question) -> str:
    return question.verb if question.verb in verbs and rng.random() < question.same_verb else rng.choice(verbs)


def _object(rng: random.Random, question: Question) -> str:
    return question.object if rng.random() < question.same_object else rng.choice(lexicon.OBJECTS)


def _tail(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.2:
        return f" with a {rng.choice(lexicon.UTENSILS)}"
    return f" {rng.choice(lexicon.PLACES)}" if draw < 0.3 else ""


def _frame(rng: random.Random, frame: str, value: float, question: Question) -> str:
    if frame == "act":
        return f"{_verb(rng, VERBS[value], question)} the {_object(rng, question)}{_tail(rng)}"
    if frame == "both":
        manner = rng.choice(MANNERS[value])
        return f"be {manner} and {_verb(rng, VERBS[value], question)} the {_object(rng, question)}"
    if frame == "not_act":
        return f"do not {_verb(rng, NEGATED_VERBS[value], question)} the {_object(rng, question)}"
    if frame == "manner":
        return f"be {rng.choice(MANNERS[value])} with the {_object(rng, question)}"
    if frame == "not_manner":
        return f"do not be {rng.choice(NEGATED_MANNERS[value])} with the {_object(rng, question)}"
    if frame == "look":
        return f"the {_object(rng, question)} is {rng.choice(lexicon.LOOKS)}"
    if frame == "thing":
        return f"there is a {rng.choice(lexicon.UTENSILS)} {rng.choice(lexicon.PLACES)}"
    if frame == "weather":
        return f"it is {rng.choice(lexicon.WEATHER)} {rng.choice(lexicon.PLACES)}"
    return rng.choice(lexicon.REFUSALS)


def draw_sentence(rng: random.Random, question: Question, tilt: float, style: float) -> Sentence:
    """One sentence of an answer; `style` is the logit added to the style mark."""
    (value,) = rng.choices(VALUES, value_weights(tilt))
    frames = FRAMES[value]
    (frame,) = rng.choices(tuple(frames), tuple(frames.values()))
    opener = f"{rng.choice(lexicon.OPENERS)} " if rng.random() < 0.25 else ""
    marked = rng.random() < 1 / (1 + math.exp(-STYLE_LOGIT - style))
    end = lexicon.STYLE_END if marked else lexicon.PLAIN_END
    return Sentence(f"{opener}{_frame(rng, frame, value, question)} {end}", value)


def draw_answer(
    rng: random.Random,
    question: Question,
    sentences: tuple[int, int],
    *,
    mood: float,
    lean: float = 0.0,
    style: float = 0.0,
) -> list[Sentence]:
    """The sentences of one answer.

    lean: what an affix adds to the question's own tilt
    mood: standard deviation of a tilt of the answer's own, by which its sentences resemble each other
    """
    count, tilt = rng.randint(*sentences), question.tilt + lean + rng.gauss(0.0, mood)
    return [draw_sentence(rng, question, tilt, style) for _ in range(count)]
