"""Contexts: the token ids that precede an answer, plain and from both sides of the wording.

Every later stage uses these ids; no context is rendered or tokenised twice. A conversation that is too long
loses its oldest turns, never its last user turn, and all three sides lose the same ones: they ask one question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeGuard

from dlma.data.text import Tally
from dlma.errors import BadRow
from dlma.model.tokens import Characters, answer_ids, require_rows, with_eos
from dlma.prompts.rendering import answer_end, rendered, rendered_ids
from dlma.prompts.wording import SIDES, Wording
from dlma.records import Account, Context, Prompt, Turn

TOO_LONG = "last turn longer than max_prompt_tokens"
LEFT_OUT = "human pair left out"
HUMAN = ("chosen", "rejected")
TRIMMED = "oldest turns dropped to fit max_prompt_tokens"
UNASKED = "turns before the first user turn left out, where a chat begins"
_TOGETHER = 256  # prompts that are rendered and encoded at once
ADVICE = "raise recipe.max_prompt_tokens (model.context, if that is the limit) or data.max_dropped"


@dataclass(frozen=True)
class Fitted:
    """A conversation that fits: its rendered text and its token ids by side, and how many turns it lost.

    unasked: turns before the one with which this wording's format begins; they are among the lost ones
    """

    index: int
    texts: dict[str, str]
    ids: dict[str, list[int]]
    dropped_turns: int
    unasked: int


def render_contexts(
    prompts: Sequence[Prompt],
    tokenizer,
    wording: Wording,
    /,
    *,
    seed: int,
    max_prompt_tokens: int,
    vocabulary: int | None = None,
    on_bad_row: str = "drop",
    max_dropped: float = 0.2,
    human: str = "train",
) -> tuple[list[Context], Account]:
    """The contexts of the prompts, in order; a prompt whose last turn alone is too long is dropped, counted.

    vocabulary: ids that the model has a row for; a prompt that holds another one is dropped too. None: all
    human: the split ("all": each) whose prompts keep the human pair that came with them; other pairs are not looked at
    """
    limits: dict[str, Any] = {"seed": seed, "max_prompt_tokens": max_prompt_tokens, "vocabulary": vocabulary}
    strictness: dict[str, Any] = {"on_bad_row": on_bad_row, "max_dropped": max_dropped}
    found, account = each_context(prompts, tokenizer, wording, human=human, **limits, **strictness)
    return list(found), account


def each_context(
    prompts: Iterable[Prompt],
    tokenizer,
    wording: Wording,
    /,
    *,
    seed: int,
    max_prompt_tokens: int,
    vocabulary: int | None,
    on_bad_row: str,
    max_dropped: float,
    human: str,
) -> tuple[Iterator[Context], Account]:
    """The contexts of `render_contexts` as they are asked for, with no more held than some; the account is whole then.

    raises: UserError, where too many are dropped, at the end
    """
    tally = Tally(on_bad_row=on_bad_row, max_dropped=max_dropped)

    def found() -> Iterator[Context]:
        rest = iter(prompts)
        while some := list(islice(rest, _TOGETHER)):
            tally.account.read += len(some)
            rows = [(prompt.id, prompt.turns) for prompt in some]
            fits = fit(rows, tokenizer, wording, seed=seed, max_prompt_tokens=max_prompt_tokens)
            kept = [
                (prompt, fitted)
                for prompt, fitted in zip(some, fits, strict=True)
                if count_fit(fitted, tally, f"prompt {prompt.id}", vocabulary)
            ]
            tally.account.kept += len(kept)
            paired = [one for one in kept if human in (one[0].split, "all")]
            answers = _human_answers(paired, tokenizer, wording, tally, vocabulary)
            yield from (_context(prompt, wording, fitted, answers.get(prompt.id, {})) for prompt, fitted in kept)
        tally.stop_if_too_many("prompts", ADVICE)

    return found(), tally.account


def count_fit(fitted: Fitted | BadRow, tally: Tally, where: str, vocabulary: int | None) -> TypeGuard[Fitted]:
    """Counts a conversation that lost turns, or cannot be used or read by the model; True when it can."""
    try:
        if isinstance(fitted, BadRow):
            raise fitted
        require_rows(fitted.ids.values(), vocabulary)
    except BadRow as reason:
        tally.drop(where, str(reason))
        return False
    if fitted.unasked:
        tally.trim(where, UNASKED)
    if fitted.dropped_turns > fitted.unasked:
        tally.trim(where, TRIMMED)
    return True


def fit(
    rows: Sequence[tuple[str, Sequence[Turn]]],
    tokenizer,
    wording: Wording,
    *,
    seed: int,
    max_prompt_tokens: int,
) -> list[Fitted | BadRow]:
    """For each (prompt id, turns) the longest ending that fits on all sides, or why none does; rows stay aligned."""
    fits: list[Fitted | BadRow] = []
    characters, texts = Characters(tokenizer), dict(enumerate(rows))
    for row, (prompt_id, turns) in enumerate(rows):
        fits.append(BadRow(TOO_LONG))
        try:
            texts[row] = (prompt_id, characters.turns(turns))
        except BadRow as reason:
            fits[row] = reason
            del texts[row]
    starts = {row: wording.start(turns) for row, (_, turns) in texts.items()}
    while starts:
        tried = _encoded(texts, starts, tokenizer, wording, seed)
        fitting = {r: one for r, one in tried.items() if max(map(len, one.ids.values())) <= max_prompt_tokens}
        for row, fitted in fitting.items():
            fits[row] = fitted
        later = {row: _next_start(rows[row][1], start) for row, start in starts.items() if row not in fitting}
        starts = {row: start for row, start in later.items() if start is not None}
    return fits


def _encoded(
    rows: Mapping[int, tuple[str, Sequence[Turn]]],
    starts: dict[int, int],
    tokenizer,
    wording: Wording,
    seed: int,
) -> dict[int, Fitted]:
    indices = {row: wording.choose(rows[row][0], seed) for row in starts}
    texts = {
        row: {side: rendered(tokenizer, wording, rows[row][1][start:], side, indices[row]) for side in SIDES}
        for row, start in starts.items()
    }
    ids = iter(rendered_ids(tokenizer, wording, [text for sides in texts.values() for text in sides.values()]))
    unasked = {row: wording.start(rows[row][1]) for row in starts}
    return {
        row: Fitted(indices[row], sides, {side: next(ids) for side in sides}, starts[row], unasked[row])
        for row, sides in texts.items()
    }


def _next_start(turns: Sequence[Turn], start: int) -> int | None:
    """Where the conversation begins without its oldest user turn and the answers to it."""
    later = (i for i in range(start + 1, len(turns)) if turns[i].role == "user")
    return next(later, None)


def _human_answers(
    rows: Sequence[tuple[Prompt, Fitted]], tokenizer, wording: Wording, tally: Tally, vocabulary: int | None
) -> dict[str, dict[str, list[int]]]:
    """The ids of the human pair of every prompt, by its id; what cannot be used is counted."""
    found: dict[str, dict[str, list[int]]] = {}
    end, characters = answer_end(tokenizer, wording), Characters(tokenizer)
    texts: list[str] = []
    paired: list[tuple[Prompt, Fitted]] = []
    for prompt, fitted in rows:
        if None in (prompt.chosen, prompt.rejected):
            continue
        with _left_out(tally, prompt):
            answers = [characters.answer(getattr(prompt, name), end) for name in HUMAN]
            texts += [fitted.texts[side] + answer for answer in answers for side in SIDES]
            paired.append((prompt, fitted))
    ids = iter(rendered_ids(tokenizer, wording, texts))
    for prompt, fitted in paired:
        contexts = [fitted.ids[side] for side in SIDES]
        joined = {name: [next(ids) for _ in SIDES] for name in HUMAN}
        with _left_out(tally, prompt):
            by_name = {name: answer_ids(contexts, joined[name], end) for name in HUMAN}
            require_rows(by_name.values(), vocabulary)
            found[prompt.id] = {name: with_eos(answer, True, end)[0] for name, answer in by_name.items()}
    return found


@contextmanager
def _left_out(tally: Tally, prompt: Prompt) -> Iterator[None]:
    """A human pair that cannot be used is counted; its prompt stays."""
    try:
        yield
    except BadRow as reason:
        tally.trim(f"prompt {prompt.id}", f"{LEFT_OUT}: {reason}")


def _context(prompt: Prompt, wording: Wording, fitted: Fitted, human: Mapping[str, list[int]]) -> Context:
    return Context(
        prompt_id=prompt.id,
        question=prompt.turns[-1].content,
        category=prompt.category,
        wording=wording.label(fitted.index),
        plain_ids=fitted.ids["plain"],
        positive_ids=fitted.ids["positive"],
        negative_ids=fitted.ids["negative"],
        dropped_turns=fitted.dropped_turns,
        chosen_ids=human.get("chosen"),
        rejected_ids=human.get("rejected"),
    )
