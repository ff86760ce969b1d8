"""What the checks before training count (preflight.py), over records of any number.

Each record is looked at once and let go. What is kept of them all are eight bytes for each thing that others are held
against (marks.py), and the prompts of a chat that does not begin with its user.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from dlma.checks.marks import Marks
from dlma.data.text import prompt_id
from dlma.records import Context, Pair, Prompt, ScoredPair

if TYPE_CHECKING:
    from dlma.model.language import LanguageModel
    from dlma.prompts.wording import Wording

SIDES = ("plain", "positive", "negative")
ANSWERS = ("positive", "negative")
PROBED = 256  # pairs that are collated to see whether padding hides a token


@dataclass(frozen=True)
class Specials:
    """A model's special token ids; `pad` is the tokenizer's own, `filler` what rows are filled up with.

    written: the ids that a chat template writes inside a conversation, where they are at home; none without one
    opens: whether contexts in this format begin with the BOS
    """

    bos: int | None
    eos: frozenset[int]
    pad: int | None
    filler: int
    written: frozenset[int] = frozenset()
    opens: bool = True


def specials_of(model: LanguageModel, wording: Wording) -> Specials:
    """The special ids of a model under a wording."""
    from dlma.prompts.rendering import begins_with_bos, written_ids

    tokenizer = model.tokenizer
    written, opens = written_ids(tokenizer, wording), begins_with_bos(tokenizer, wording)
    return Specials(tokenizer.bos_token_id, model.eos_ids, tokenizer.pad_token_id, model.pad_id, written, opens)


@dataclass(frozen=True)
class Faults:
    """How many of the things looked at are faulty, and the first of them; `why` there was nothing to look at."""

    bad: int
    of: int
    first: str = ""
    why: str = ""


def inspect(
    specials: Specials,
    *,
    prompts: Sequence[Prompt],
    contexts: Sequence[Context],
    held_out: Sequence[Context],
    pairs: Sequence[Pair],
    scored: Sequence[ScoredPair],
) -> dict[str, dict]:
    """The counts of every check, as plain values that a stage's notes can hold."""
    seen = _Inspection(specials)
    _each(seen.prompt, prompts)
    _each(seen.context, contexts)
    _each(seen.held_out, held_out)
    _each(seen.pair, pairs)
    _each(seen.scored_pair, scored)
    found = seen.faults(prompts, scored) | {"padding": _padding(specials, scored[:PROBED])}
    return {name: asdict(count) for name, count in found.items()}


def _each(look: Callable[[Any], None], rows: Sequence) -> None:
    for row in rows:
        look(row)


@dataclass
class _Count:
    """Faults while they are counted."""

    bad: int = 0
    of: int = 0
    first: str = ""

    def add(self, where: str, faulty: bool) -> None:
        self.of += 1
        if faulty:
            self.bad += 1
            self.first = self.first or where

    def faults(self, why: str) -> Faults:
        return Faults(self.bad, self.of, self.first, "" if self.of else why)

    def after(self, other: _Count) -> _Count:
        return _Count(other.bad + self.bad, other.of + self.of, other.first or self.first)


class _Inspection:
    """What is counted of each record, and the marks of those that later ones are held against."""

    def __init__(self, specials: Specials) -> None:
        self.specials = specials
        self.named = {specials.bos, specials.pad} - {None} - specials.eos
        self.counts: defaultdict[str, _Count] = defaultdict(_Count)
        self.opening: dict[str, int] = {}  # turns of a chat before the first of the user, where there are any
        self.train, self.others = Marks(), Marks()  # texts of prompts
        self.ours, self.worded = Marks(), Marks()  # training prompts, alone and with their plain context
        self.held_prompts, self.held_contexts = Marks(), Marks()
        self.made, self.scored = Marks(), Marks()  # pairs with their token ids, and the token ids alone

    def prompt(self, row: Prompt) -> None:
        (self.train if row.split == "train" else self.others).add(prompt_id(row.turns))
        first = next((place for place, turn in enumerate(row.turns) if turn.role == "user"), 0)
        if first and self.specials.written:
            self.opening[row.id] = first

    def context(self, row: Context) -> None:
        self.ours.add(row.prompt_id)
        self.worded.add(row.prompt_id, row.plain_ids)
        self._rendered(row)

    def held_out(self, row: Context) -> None:
        self.held_prompts.add(row.prompt_id)
        self.held_contexts.add(row.plain_ids)
        self._rendered(row)

    def pair(self, row: Pair) -> None:
        self.made.add(row.id, _ids(row))
        self.counts["empty_answers"].add(f"pair {row.id}", _blank(row))

    def scored_pair(self, row: ScoredPair) -> None:
        where, ids = f"pair {row.id}", _ids(row)
        self.scored.add(ids)
        self._contexts(where, ids[: len(SIDES)])
        leaked = self.held_prompts.has(row.prompt_id) or self.held_contexts.has(row.plain_context_ids)
        self.counts["boundary"].add(where, not self.made.has(row.id, ids))
        self.counts["contamination"].add(where, leaked)
        self.counts["unusable"].add(where, _unusable(row))
        self.counts["identical_pairs"].add(where, row.positive_ids == row.negative_ids)
        if self.ours.has(row.prompt_id):
            self.counts["wording"].add(where, not self.worded.has(row.prompt_id, row.plain_context_ids))
        for side in ANSWERS:
            self._answer(row, where, side)

    def _answer(self, row: ScoredPair, where: str, side: str) -> None:
        self.counts["eos"].add(where, _misended(self.specials, row, side))
        if self.specials.eos:
            self.counts["truncated"].add(f"{where}, {side}", not getattr(row, f"{side}_finished"))
        if self.named:
            inside = not self.named.isdisjoint(getattr(row, f"{side}_ids"))
            self.counts["specials of answers"].add(f"{where}, {side} answer", inside)

    def _rendered(self, row: Context) -> None:
        """A context that lost turns to the limit; those before the first user turn have no place in any chat."""
        where = f"prompt {row.prompt_id}"
        self._contexts(where, [getattr(row, f"{side}_ids") for side in SIDES])
        self.counts["trimmed"].add(where, row.dropped_turns > self.opening.get(row.prompt_id, 0))

    def _contexts(self, where: str, contexts: Sequence[list[int]]) -> None:
        bos = self.specials.bos
        for side, ids in zip(SIDES, contexts, strict=True):
            if bos is not None and self.specials.opens:
                self.counts["bos"].add(f"{where}, {side}", ids[:1] != [bos] or ids[1:2] == [bos])
            if self.named:
                inside = set(ids[1:]) - self.specials.written
                self.counts["specials"].add(f"{where}, {side}", not self.named.isdisjoint(inside))

    def faults(self, prompts: Sequence[Prompt], scored: Sequence[ScoredPair]) -> dict[str, Faults]:
        """What was counted, by check, with what the marks tell; prompts, scored: the rows again, to name one."""

        def train(number: int) -> str:
            return next(islice((row.id for row in prompts if row.split == "train"), number, None))

        counts, of = self.counts, len(self.train)
        held = _marked(self.train.shared(self.others), of, lambda number: f"prompt {train(number)}")
        counts["contamination"] = counts["contamination"].after(held)  # by text; pairs by prompt and by token ids
        counts["specials"] = counts["specials of answers"].after(counts["specials"])
        counts["duplicate_prompts"] = _marked(self.train.repeats(), of, train)
        counts["duplicate_pairs"] = _marked(self.scored.repeats(), len(scored), lambda number: scored[number].id)
        return {name: counts[name].faults(why) for name, why in _whys(self.specials, bool(self.named)).items()}


def _marked(found: tuple[int, int], of: int, name: Callable[[int], str]) -> _Count:
    """What marks tell: how many of so many, and the number of the first."""
    bad, number = found
    return _Count(bad, of, name(number) if bad else "")


def _whys(specials: Specials, named: bool) -> dict[str, str]:
    """Why nothing was looked at, where nothing was, by check."""
    pairs = ("eos", "boundary", "unusable", "duplicate_prompts", "duplicate_pairs", "identical_pairs", "empty_answers")
    bos = specials.bos is not None and specials.opens
    none = "nothing to look at"
    return {
        **dict.fromkeys(pairs, "no pairs"),
        "bos": none if bos else "no BOS belongs in front: the tokenizer or the chat template puts none there",
        "contamination": none,
        "specials": none if named else "BOS and pad are the EOS, or there are none",
        "wording": "no pair is on a training prompt of this run",
        "trimmed": none,
        "truncated": "no pairs" if specials.eos else "the model has no EOS, so no answer ends by itself",
    }


def _padding(specials: Specials, scored: Sequence[ScoredPair]) -> Faults:
    """Rows are collated as training does it: every token of every answer must be a target."""
    if not scored:
        return Faults(0, 0, why="no pairs")
    from dlma.model import trees

    planned = [
        trees.build_tree([trees.Completion(p.plain_context_ids, getattr(p, f"{side}_ids")) for side in ANSWERS])
        for p in scored
        if p.plain_context_ids
    ]
    if not planned:
        return Faults(0, 0, why="no pair has a context")
    targets = Counter(trees.collate(planned, specials.filler).target.tolist())
    wanted = Counter(i for p in scored if p.plain_context_ids for side in ANSWERS for i in getattr(p, f"{side}_ids"))
    lost = wanted - targets
    first = f"token id {min(lost)}" if lost else ""
    return Faults(lost.total(), wanted.total(), first, "" if wanted else "no answer has a token")


def _unusable(pair: ScoredPair) -> bool:
    numbers = (pair.margin, pair.positive_reference, pair.negative_reference)
    return not all(map(math.isfinite, numbers)) or not pair.positive_ids or not pair.negative_ids or _blank(pair)


def _blank(pair: Pair) -> bool:
    return not pair.positive_text.strip() or not pair.negative_text.strip()


def _misended(specials: Specials, pair: Pair, side: str) -> bool:
    """Whether an answer's EOS is not where `finished` says it is: at the end if and only if it is true."""
    ids, finished = getattr(pair, f"{side}_ids"), getattr(pair, f"{side}_finished")
    return any(i in specials.eos for i in ids[:-1]) or (bool(ids) and ids[-1] in specials.eos) != finished


def _ids(pair: Pair) -> list[list[int]]:
    contexts = [getattr(pair, f"{side}_context_ids") for side in SIDES]
    return [*contexts, *(getattr(pair, f"{side}_ids") for side in ANSWERS)]
