"""Checks before training, on the records: whether they hold what training takes for granted.

`inspect` counts, over the records alone, and its counts are stored; `Preflight` holds them against its limits. What
would make the run worthless stops it; what is worth knowing is a warning. That the policy equals the reference and
the first loss its closed form is checked at step 0 (objective/dpo.py), where both are at hand.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from dlma.checks.finding import Finding
from dlma.data.text import prompt_id
from dlma.errors import UserError
from dlma.ranges import Count, Share, Whole
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


@dataclass(frozen=True)
class Check:
    """A check: what is counted, what to do, and the limit (a field of Preflight) or None where one fault stops."""

    counted: str
    advice: str
    limit: str | None = None


CHECKS = {
    "bos": Check(
        "contexts do not begin with exactly one BOS",
        "the tokenizer or the template adds none, or adds it twice",
    ),
    "eos": Check(
        "answers have an EOS that they did not end with, or none where they ended",
        "make the pairs again, or mend the *_finished columns of the file",
    ),
    "boundary": Check(
        "scored pairs do not have the token ids of the pair that was made",
        "the scorer must hand on a pair's ids as they are",
    ),
    "padding": Check(
        "answer tokens would be hidden by padding",
        "masks must follow from lengths, not from the pad id",
    ),
    "contamination": Check(
        "training prompts or pairs are on a prompt that is held out",
        "take them out of the training file or of the test file",
    ),
    "unusable": Check(
        "scored pairs have an empty answer, or a margin or log-prob that is not a finite number",
        "look at the model's dtype and at the pairs' file",
    ),
    "specials": Check(
        "contexts or answers have a BOS or pad token inside",
        "texts that spell special tokens out, padded ids in a file, or a model that samples them",
        "max_specials",
    ),
    "wording": Check(
        "pairs do not have the plain context that this run's wording gives their prompt",
        "training and evaluation then differ in the template: use the prompts= of the pairs",
        "max_reworded",
    ),
    "trimmed": Check("contexts lost their oldest turns", "raise recipe.max_prompt_tokens", "max_trimmed"),
    "truncated": Check("answers were cut at the length limit", "raise recipe.max_new_tokens", "max_truncated"),
    "duplicate_prompts": Check(
        "training prompts repeat another one, white space and case aside", "remove them", "max_duplicates"
    ),
    "duplicate_pairs": Check("pairs repeat another one", "remove them", "max_duplicates"),
    "identical_pairs": Check(
        "pairs have the same answer twice, from which nothing is learned",
        "a stronger prompt pair, or a higher temperature",
        "max_identical",
    ),
    "empty_answers": Check("pairs were dropped for an empty answer", "look at the template", "max_empty"),
}


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
    rendered = [*contexts, *held_out]
    found = {
        "bos": _bos(specials, rendered, scored),
        "eos": _count(((f"pair {p.id}", _misended(specials, p, side)) for p in scored for side in ANSWERS), "no pairs"),
        "boundary": _boundary(pairs, scored),
        "padding": _padding(specials, scored[:PROBED]),
        "contamination": _contamination(prompts, held_out, scored),
        "unusable": _count(((f"pair {p.id}", _unusable(p)) for p in scored), "no pairs"),
        "specials": _specials_inside(specials, rendered, scored),
        "wording": _wording(contexts, scored),
        "trimmed": _trimmed(specials, prompts, rendered),
        "truncated": _truncated(specials, scored),
        "duplicate_prompts": _repeats((p.id, prompt_id(p.turns)) for p in prompts if p.split == "train"),
        "duplicate_pairs": _repeats((p.id, (*map(tuple, _ids(p)),)) for p in scored),
        "identical_pairs": _count(((f"pair {p.id}", p.positive_ids == p.negative_ids) for p in scored), "no pairs"),
        "empty_answers": _count(((f"pair {p.id}", _blank(p)) for p in pairs), "no pairs"),
    }
    return {name: asdict(count) for name, count in found.items()}


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """The largest shares that give no warning.

    short_answers: a length limit (max_new_tokens) of at most so many tokens is a chosen length: being cut is the plan
    waived: checks that warn where they would stop the run, for experiments about the very fault
    """

    max_specials: Share
    max_reworded: Share
    max_trimmed: Share
    max_truncated: Share
    max_duplicates: Share
    max_identical: Share
    max_empty: Share
    max_new_tokens: Count
    short_answers: Whole
    waived: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        unknown = [name for name in self.waived if name not in CHECKS]
        if unknown:
            raise UserError(f"preflight.waived: no check {unknown[0]!r}; there are {', '.join(CHECKS)}")

    def judge(self, counts: dict[str, dict]) -> list[Finding]:
        """What the counts say; raises UserError for the first fault that makes training worthless."""
        found = [self._finding(name, check, Faults(**counts[name])) for name, check in CHECKS.items()]
        stops = [one for one in found if one.state == "stop"]
        if stops:
            more = f" (and: {', '.join(one.name for one in stops[1:])})" if stops[1:] else ""
            raise UserError(f"preflight, {stops[0].line}{more}")
        return found

    def _finding(self, name: str, check: Check, count: Faults) -> Finding:
        if count.of == 0:
            return Finding(name, "unknown", count.why)
        limit = getattr(self, check.limit) if check.limit else 0.0
        faulty = count.bad / count.of > limit
        share = f" ({100 * count.bad / count.of:.1f} %)" if count.bad else ""
        text = f"{count.bad:,} of {count.of:,} {check.counted}{share}"
        allowed = f"; at most {100 * limit:g} % pass without a word" if check.limit else ""
        if not faulty:
            return Finding(name, "ok", text + allowed)
        if name == "truncated" and self.max_new_tokens <= self.short_answers:
            planned = f"recipe.max_new_tokens={self.max_new_tokens} is at most preflight.short_answers"
            return Finding(name, "ok", f"{text}, as planned: {planned}={self.short_answers}")
        advice = f"; first: {count.first}; {check.advice}"
        passes = check.limit or name in self.waived
        return Finding(name, "warning" if passes else "stop", text + allowed + advice)


def _count(rows: Iterable[tuple[str, bool]], why: str = "nothing to look at") -> Faults:
    bad, of, first = 0, 0, ""
    for where, faulty in rows:
        of += 1
        if faulty:
            bad += 1
            first = first or where
    return Faults(bad, of, first, "" if of else why)


def _trimmed(specials: Specials, prompts: Sequence[Prompt], rendered: Sequence[Context]) -> Faults:
    """Contexts that lost turns to the limit; those before the first user turn have no place in any chat."""
    opening = {p.id: next((i for i, t in enumerate(p.turns) if t.role == "user"), 0) for p in prompts}
    unasked = opening if specials.written else {}
    return _count((f"prompt {c.prompt_id}", c.dropped_turns > unasked.get(c.prompt_id, 0)) for c in rendered)


def _repeats(rows: Iterable[tuple[str, object]]) -> Faults:
    seen: Counter = Counter()
    return _count(((where, _again(seen, key)) for where, key in rows), "no pairs")


def _again(seen: Counter, key: object) -> bool:
    seen[key] += 1
    return seen[key] > 1


def _contexts_of(rendered: Sequence[Context], scored: Sequence[ScoredPair]) -> Iterator[tuple[str, list[int]]]:
    for row in rendered:
        for side in SIDES:
            yield f"prompt {row.prompt_id}, {side}", getattr(row, f"{side}_ids")
    for pair in scored:
        for side in SIDES:
            yield f"pair {pair.id}, {side}", getattr(pair, f"{side}_context_ids")


def _ids(pair: Pair) -> list[list[int]]:
    contexts = [getattr(pair, f"{side}_context_ids") for side in SIDES]
    return [*contexts, *(getattr(pair, f"{side}_ids") for side in ANSWERS)]


def _bos(specials: Specials, rendered: Sequence[Context], scored: Sequence[ScoredPair]) -> Faults:
    if specials.bos is None or not specials.opens:
        return Faults(0, 0, why="no BOS belongs in front: the tokenizer or the chat template puts none there")
    bos = specials.bos
    return _count((where, ids[:1] != [bos] or ids[1:2] == [bos]) for where, ids in _contexts_of(rendered, scored))


def _misended(specials: Specials, pair: Pair, side: str) -> bool:
    """Whether an answer's EOS is not where `finished` says it is: at the end if and only if it is true."""
    ids, finished = getattr(pair, f"{side}_ids"), getattr(pair, f"{side}_finished")
    return any(i in specials.eos for i in ids[:-1]) or (bool(ids) and ids[-1] in specials.eos) != finished


def _boundary(pairs: Sequence[Pair], scored: Sequence[ScoredPair]) -> Faults:
    made = {pair.id: _ids(pair) for pair in pairs}
    return _count(((f"pair {p.id}", made.get(p.id) != _ids(p)) for p in scored), "no pairs")


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


def _contamination(prompts: Sequence[Prompt], held_out: Sequence[Context], scored: Sequence[ScoredPair]) -> Faults:
    """By normalised text between the splits; between pairs and held-out prompts by id and by token ids."""
    others = {prompt_id(p.turns) for p in prompts if p.split != "train"}
    names = {c.prompt_id for c in held_out}
    contexts = {tuple(c.plain_ids) for c in held_out}
    rows = [(f"prompt {p.id}", prompt_id(p.turns) in others) for p in prompts if p.split == "train"]
    rows += [(f"pair {p.id}", p.prompt_id in names or tuple(p.plain_context_ids) in contexts) for p in scored]
    return _count(rows)


def _unusable(pair: ScoredPair) -> bool:
    numbers = (pair.margin, pair.positive_reference, pair.negative_reference)
    return not all(map(math.isfinite, numbers)) or not pair.positive_ids or not pair.negative_ids or _blank(pair)


def _blank(pair: Pair) -> bool:
    return not pair.positive_text.strip() or not pair.negative_text.strip()


def _specials_inside(specials: Specials, rendered: Sequence[Context], scored: Sequence[ScoredPair]) -> Faults:
    named = {specials.bos, specials.pad} - {None} - specials.eos
    if not named:
        return Faults(0, 0, why="BOS and pad are the EOS, or there are none")
    answers = ((f"pair {p.id}, {side} answer", getattr(p, f"{side}_ids")) for p in scored for side in ANSWERS)
    contexts = ((where, set(ids[1:]) - specials.written) for where, ids in _contexts_of(rendered, scored))
    rows = ((where, not named.isdisjoint(ids)) for part in (contexts, answers) for where, ids in part)
    return _count(rows)


def _wording(contexts: Sequence[Context], scored: Sequence[ScoredPair]) -> Faults:
    known = {row.prompt_id: row.plain_ids for row in contexts}
    rows = ((f"pair {p.id}", known[p.prompt_id] != p.plain_context_ids) for p in scored if p.prompt_id in known)
    return _count(rows, "no pair is on a training prompt of this run")


def _truncated(specials: Specials, scored: Sequence[ScoredPair]) -> Faults:
    if not specials.eos:
        return Faults(0, 0, why="the model has no EOS, so no answer ends by itself")
    rows = ((f"pair {p.id}, {side}", not getattr(p, f"{side}_finished")) for p in scored for side in ANSWERS)
    return _count(rows, "no pairs")
