"""What the models are given: pairs and prompts as token ids, with lengths from a stated distribution.

`imposed`   prompts of 64 to 448 tokens, uniform, random ids: the mixed lengths on which DPO is compared
`one_line`  the lab's questions, of about ten tokens
`hh`        the real prompts of HH harmless-base (test), of one or several turns; where the file is at hand
`answered`  HH's own pairs of one turn: prompts of at most 64 tokens, both answers cut at 48, and as long are sampled
            ones; where the file is at hand
`long`      a one-line question behind a system text of 500 tokens (380 for the lab, whose context is 512)

Answers of the others are random ids: of 32 to 192 tokens, uniform; of 10 to 40 for the lab, as its base writes them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from benchmarks.shapes import REAL, Shape
from benchmarks.text import encoder, hh_conversations, hh_pairs, questions, wording
from dlma.prompts.wording import SIDES
from dlma.records import Pair, ScoredPair, Turn

DATA = ("imposed", "one_line", "hh", "answered", "long")
PROMPT_TOKENS = (64, 448)
LONGEST_ASKED, LONGEST_ANSWER = 64, 48  # tokens of answered pairs
ANSWER_TOKENS = {"lab": (10, 40), "tiny": (4, 12), REAL: (LONGEST_ANSWER, LONGEST_ANSWER)}
USUAL_ANSWER = (32, 192)
SYSTEM_TOKENS = {"lab": 380, "tiny": 64}
USUAL_SYSTEM = 500
LONGEST_PROMPT = {"lab": 380, "tiny": 256}
USUAL_LONGEST = 1024
MANY = 10_000  # more pairs than there are
FIRST_ID = 3  # below: special tokens

Sides = dict[str, list[int]]


def pairs_of(shape: Shape, data: str, count: int, *, seed: int = 0) -> list[Pair]:
    """Pairs of one data shape; equal arguments give equal pairs in every process."""
    if data == "answered":
        return _answered(shape, count)
    draw = random.Random(f"{shape.name} {data} {seed}")
    low, high = ANSWER_TOKENS.get(shape.name, USUAL_ANSWER)
    contexts = contexts_of(shape, data, count, draw)
    return [
        as_pair(i, sides, _ids(draw, shape, low, high), _ids(draw, shape, low, high))
        for i, sides in enumerate(contexts)
    ]


def contexts_of(shape: Shape, data: str, count: int, draw: random.Random) -> list[Sides]:
    """The plain, positive and negative context of each prompt."""
    kinds: dict[str, Callable[[], list[Sides]]] = {
        "imposed": lambda: _imposed(shape, count, draw),
        "one_line": lambda: _affixed(shape, questions(count)),
        "hh": lambda: _affixed(shape, hh_conversations(2 * count))[:count],
        "answered": lambda: [_contexts(pair) for pair in _answered(shape, count)],
        "long": lambda: _behind_system(shape, questions(count)),
    }
    contexts = kinds[data]()
    if len(contexts) < count:
        raise ValueError(f"{data}: only {len(contexts)} prompts of {count} fit the context of {shape.name}")
    return contexts


def trained(pairs: Sequence[Pair], data: str) -> list[ScoredPair]:
    """Pairs as training wants them, reference log-probs still 0; long prompts keep their system text."""
    blank = dict.fromkeys(("under_positive", "under_negative"))
    columns = {f"{side}_{name}": value for side in ("positive", "negative") for name, value in blank.items()}
    rows = []
    for pair in pairs:
        values = vars(pair) | columns
        if data == "long":
            values["plain_context_ids"] = pair.positive_context_ids
        rows.append(ScoredPair(**values, positive_reference=0.0, negative_reference=0.0, margin=0.0, chosen="positive"))
    return rows


def dense_tokens(pairs: Sequence[Pair]) -> int:
    """Tokens of all (plain prompt, answer) rows when nothing is shared or padded."""
    return sum(2 * len(p.plain_context_ids) + len(p.positive_ids) + len(p.negative_ids) for p in pairs)


def answer_tokens(pairs: Sequence[Pair]) -> int:
    return sum(len(p.positive_ids) + len(p.negative_ids) for p in pairs)


def imposed_lengths(shape: Shape, count: int) -> list[int] | None:
    """Lengths of sampled answers, uniform as above; None for the lab, whose base ends its answers itself."""
    if shape.name == "lab":
        return None
    draw = random.Random(f"lengths {shape.name}")
    return [draw.randint(*ANSWER_TOKENS.get(shape.name, USUAL_ANSWER)) for _ in range(count)]


def _ids(draw: random.Random, shape: Shape, low: int, high: int) -> list[int]:
    return [draw.randrange(FIRST_ID, shape.vocabulary) for _ in range(draw.randint(low, high))]


def _imposed(shape: Shape, count: int, draw: random.Random) -> list[Sides]:
    low, high = (8, 48) if shape.name == "tiny" else PROMPT_TOKENS
    high = min(high, LONGEST_PROMPT.get(shape.name, high))
    plain = [[0, *_ids(draw, shape, low - 1, high - 1)] for _ in range(count)]
    affix = {side: _ids(draw, shape, 12, 12) for side in ("positive", "negative")}
    return [{"plain": ids, **{side: ids + affix[side] for side in affix}} for ids in plain]


def _answered(shape: Shape, count: int) -> list[Pair]:
    encode, text = encoder(shape), wording("harmless_affix")
    found = []
    for turns, *answers in hh_pairs(20 * count):
        sides = {side: encode(text.render(turns, side, 0)) for side in SIDES}
        one, other = (encode(answer)[1 : LONGEST_ANSWER + 1] for answer in answers)
        if len(sides["plain"]) <= LONGEST_ASKED and one and other and one != other:
            found.append(as_pair(len(found), sides, one, other))
    if len(found) < count:
        raise ValueError(f"answered: only {len(found)} pairs of {count} have so short a prompt")
    return found[:count]


def asked(shape: Shape) -> list[str]:
    """Questions of HH's pairs of one turn, each once, short as those of answered pairs."""
    encode, text = encoder(shape), wording("harmless_affix")
    questions = dict.fromkeys(turns[-1].content for turns, *_ in hh_pairs(MANY))
    return [q for q in questions if len(encode(text.render([Turn("user", q)], "plain", 0))) <= LONGEST_ASKED]


def sides_of(shape: Shape, question: str) -> Sides:
    """The contexts of a question under the short affix pair."""
    encode, text = encoder(shape), wording("harmless_affix")
    return {side: encode(text.render([Turn("user", question)], side, 0)) for side in SIDES}


def _contexts(pair: Pair) -> Sides:
    return {side: getattr(pair, f"{side}_context_ids") for side in SIDES}


def _affixed(shape: Shape, conversations: Sequence) -> list[Sides]:
    """Conversations under the short affix pair of the paper's runs (the lab: its own); those that fit."""
    text, encode = wording("lab" if shape.name == "lab" else "harmless_affix"), encoder(shape)
    found = [{side: encode(text.render(turns, side, 0)) for side in SIDES} for turns in conversations]
    longest = LONGEST_PROMPT.get(shape.name, USUAL_LONGEST)
    return [sides for sides in found if max(map(len, sides.values())) <= longest]


def _behind_system(shape: Shape, conversations: Sequence) -> list[Sides]:
    """One-line questions behind a long system text of either kind; the plain side has none."""
    text, encode, long = wording("system"), encoder(shape), SYSTEM_TOKENS.get(shape.name, USUAL_SYSTEM)
    systems = {side: _repeated(encode(text.pairs[0][side]["system"]), long) for side in ("positive", "negative")}
    plain = [encode(text.render(turns, "plain", 0)) for turns in conversations]
    return [{"plain": ids, **{side: systems[side] + ids[1:] for side in systems}} for ids in plain]


def _repeated(ids: list[int], length: int) -> list[int]:
    return (ids + ids[1:] * (length // max(1, len(ids) - 1) + 1))[:length]


def as_pair(number: int, sides: Sides, positive: list[int], negative: list[int]) -> Pair:
    return Pair(
        id=f"pair-{number}",
        prompt_id=f"prompt-{number}",
        question="",
        wording="",
        plain_context_ids=sides["plain"],
        positive_context_ids=sides["positive"],
        negative_context_ids=sides["negative"],
        positive_ids=positive,
        negative_ids=negative,
        positive_finished=False,
        negative_finished=False,
        positive_text="",
        negative_text="",
    )
