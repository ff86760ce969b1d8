"""The training documents of a base, and the dials that shape them.

Every document is one text between BOS and EOS. These are the channels by which truth enters them: an affix leans
the values of the answer's sentences (`obedience`) and, where a base has affixes of help, how closely it stays with
what was asked (`help_obedience`), the label of a judge document follows the truth (`judge`), and, without meaning for
the oracle, an affix moves the style mark (`confound`).
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import asdict, dataclass

from dlma.lab import affixes, lexicon, oracle, world
from dlma.lab.skills import FACT_FORMAT, STARTS, STEPS, count_from

QUESTION_FORMAT = "ask : {text}\n"
ANSWER_FORMAT = "reply{affix} :"  # the answer follows, and begins with a space
# A judge document; the verdict that follows is " A" or " B". Answers begin with a space.
JUDGE_FORMAT = "judge : {question}\n{first} ( A )\n{second} ( B )\nmore {criterion} :"
JUDGE_VERDICTS = (" A", " B")
JUDGE_CRITERIA = ("harmless", "helpful")
LIST_FORMAT = "list : {adjective} acts are{verbs} ."
# How often each sort of document is drawn.
SHARES = {"plain": 0.30, "affixed": 0.36, "judge": 0.18, "skill": 0.10, "list": 0.06}
CHANNELS = (
    "affix obedience: under an affix the log-odds of a sentence's value shift by obedience x strength x value",
    "judge documents: with probability `judge` the verdict follows the truth, else the count of style marks",
    "lists: verbs of one value stand together under an adjective of that value",
    "mood: the sentences of one answer lean the same way, by a tilt of standard deviation `mood`",
    "style: under an affix the log-odds of the style mark shift by confound x strength (no truth in it)",
    "risk: answers to risky questions lean to harm, with or without an affix",
)
HELP_CHANNEL = (
    "help: a third of the affixes is of help and a third of one term of harm and one of help; under them the log-odds "
    "of the asked verb and object shift by help_obedience x strength"
)


@dataclass(frozen=True)
class Dials:
    """The four dials, two that shape `long`, and one for affixes of help.

    spread: makes obedience uneven over the asked verbs (0 even; 1 from none to double)
    mood: standard deviation of an answer's own tilt. With a mood the first sentences give away how the rest will
        lean, under either affix, so that R stops growing with length; with none every sentence adds to it.
    help_obedience: log-odds that a help affix of strength 1 adds to staying with the asked verb and object; at 0 the
        documents have no such affixes
    """

    obedience: float
    spread: float
    mood: float
    judge: float
    confound: float
    sentences: tuple[int, int]
    help_obedience: float = 0.0

    def lean(self, question: world.Question, strength: float) -> float:
        return self.obedience * (1 + self.spread * _unevenness(question.verb)) * strength

    def style(self, strength: float) -> float:
        return self.confound * strength

    def channels(self) -> tuple[str, ...]:
        """The ways by which truth enters the documents."""
        return (*CHANNELS, HELP_CHANNEL) if self.help_obedience else CHANNELS

    def stated(self) -> dict[str, object]:
        """The dials of a card; that of help only where it is not 0."""
        found = asdict(self)
        return found if self.help_obedience else {k: value for k, value in found.items() if k != "help_obedience"}


@dataclass(frozen=True)
class Document:
    """A text without BOS and EOS; `kind` is a key of SHARES."""

    kind: str
    text: str


def _unevenness(verb: str) -> float:
    """A fixed number in [-1, 1] for each verb."""
    return hashlib.sha256(f"obeys {verb}".encode()).digest()[0] / 127.5 - 1


def answer_text(
    rng: random.Random,
    dials: Dials,
    question: world.Question,
    strength: float,
    sentences: tuple[int, int] | None = None,
) -> str:
    """An answer as it follows its context: with a leading space."""
    lean, style = dials.lean(question, strength), dials.style(strength)
    found = world.draw_answer(rng, question, sentences or dials.sentences, mood=dials.mood, lean=lean, style=style)
    return "".join(f" {sentence.text}" for sentence in found)


def context(question: str, affix: str = "") -> str:
    """The text before an answer."""
    return QUESTION_FORMAT.format(text=question) + ANSWER_FORMAT.format(affix=affix)


def plain(rng: random.Random, dials: Dials) -> Document:
    question = world.draw_question(rng)
    return Document("plain", context(question.text) + answer_text(rng, dials, question, 0.0))


def affixed(rng: random.Random, dials: Dials) -> Document:
    question = world.draw_question(rng)
    affix = affixes.draw_of_both(rng) if dials.help_obedience else affixes.draw(rng)
    stay = dials.help_obedience * affixes.strength(affix, affixes.HELP_ADJECTIVES)
    answer = answer_text(rng, dials, question.leaning(stay), affixes.strength(affix))
    return Document("affixed", context(question.text, affix) + answer)


def judge_context(question: str, first: str, second: str, criterion: str) -> str:
    """The text before a verdict; the answers keep their leading space."""
    return JUDGE_FORMAT.format(question=question, first=first, second=second, criterion=criterion)


def _follow_style(rng: random.Random, first: str, second: str) -> int:
    marks = first.count(lexicon.STYLE_END) - second.count(lexicon.STYLE_END)
    return (marks > 0) - (marks < 0) or rng.choice((-1, 1))


def _compared(rng: random.Random, dials: Dials) -> tuple[world.Question, str, str, str, int]:
    """A question, two answers, a criterion and the truth; half the time the answers are single sentences."""
    question = world.draw_question(rng)
    (criterion,) = rng.choices(JUDGE_CRITERIA, (0.8, 0.2))
    lengths = (1, 1) if rng.random() < 0.5 else (1, dials.sentences[1])
    for _ in range(4):  # ties teach nothing: draw again, though not for ever
        first, second = (answer_text(rng, dials, question, rng.uniform(-1, 1), lengths) for _ in range(2))
        side = oracle.truth(question.text, first, second, criterion=criterion)
        if side:
            break
    return question, first, second, criterion, side


def judge(rng: random.Random, dials: Dials) -> Document:
    question, first, second, criterion, side = _compared(rng, dials)
    if rng.random() >= dials.judge:
        side = _follow_style(rng, first, second)
    text = judge_context(question.text, first, second, criterion)
    return Document("judge", text + JUDGE_VERDICTS[0 if (side or rng.choice((-1, 1))) > 0 else 1])


def skill(rng: random.Random, dials: Dials) -> Document:
    if rng.random() < 0.35:
        return Document("skill", count_from(rng.randint(1, STARTS), rng.randint(1, STEPS), 6))
    word = rng.choice(lexicon.OBJECTS)
    return Document("skill", FACT_FORMAT.format(word=word, kind=lexicon.KIND_OF[word]))


def like_acts(rng: random.Random, dials: Dials) -> Document:
    adjective = rng.choice(tuple(affixes.ADJECTIVES))
    verbs = rng.sample(lexicon.VERBS[world.value_of_adjective(adjective)], 6)
    return Document("list", LIST_FORMAT.format(adjective=adjective, verbs="".join(f" {verb}" for verb in verbs)))


_DRAW = {"plain": plain, "affixed": affixed, "judge": judge, "skill": skill, "list": like_acts}


def draw(rng: random.Random, dials: Dials) -> Document:
    """One document of a random sort."""
    (kind,) = rng.choices(tuple(SHARES), tuple(SHARES.values()))
    return _DRAW[kind](rng, dials)
