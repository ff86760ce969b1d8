"""Contexts: the token ids that precede an answer, plain and from both sides of the wording.

Every later stage uses these ids; no context is rendered or tokenised twice. A conversation that is too long
loses its oldest turns, never its last user turn, and all three sides lose the same ones: they ask one question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlma.data.text import Tally
from dlma.errors import BadRow
from dlma.model.tokens import answer_ids, encode, with_eos
from dlma.prompts.rendering import rendered
from dlma.prompts.wording import SIDES, Wording
from dlma.records import Account, Context, Prompt, Turn

TOO_LONG = "last turn longer than max_prompt_tokens"
LEFT_OUT = "human pair left out"
HUMAN = ("chosen", "rejected")
TRIMMED = "oldest turns dropped to fit max_prompt_tokens"
ADVICE = "raise recipe.max_prompt_tokens (model.context, if that is the limit) or data.max_dropped"


@dataclass(frozen=True)
class Fitted:
    """A conversation that fits: its rendered text and its token ids by side, and how many turns it lost."""

    index: int
    texts: dict[str, str]
    ids: dict[str, list[int]]
    dropped_turns: int


def render_contexts(
    prompts: Sequence[Prompt],
    tokenizer,
    wording: Wording,
    /,
    *,
    seed: int,
    max_prompt_tokens: int,
    on_bad_row: str = "drop",
    max_dropped: float = 0.2,
) -> tuple[list[Context], Account]:
    """The contexts of the prompts, in order; a prompt whose last turn alone is too long is dropped, counted."""
    tally = Tally(on_bad_row=on_bad_row, max_dropped=max_dropped)
    tally.account.read = len(prompts)
    rows = [(prompt.id, prompt.turns) for prompt in prompts]
    fits = fit(rows, tokenizer, wording, seed=seed, max_prompt_tokens=max_prompt_tokens)
    kept = [
        (prompt, fitted)
        for prompt, fitted in zip(prompts, fits, strict=True)
        if count_fit(tally, f"prompt {prompt.id}", fitted)
    ]
    human = _human_answers(kept, tokenizer, tally)
    contexts = [_context(prompt, wording, fitted, human[prompt.id]) for prompt, fitted in kept]
    tally.account.kept = len(contexts)
    tally.stop_if_too_many("prompts", ADVICE)
    return contexts, tally.account


def count_fit(tally: Tally, where: str, fitted: Fitted | None) -> bool:
    """Counts a conversation that lost turns or does not fit at all; True when it fits."""
    if fitted is None:
        tally.drop(where, TOO_LONG)
        return False
    if fitted.dropped_turns:
        tally.trim(where, TRIMMED)
    return True


def fit(
    rows: Sequence[tuple[str, Sequence[Turn]]],
    tokenizer,
    wording: Wording,
    *,
    seed: int,
    max_prompt_tokens: int,
) -> list[Fitted | None]:
    """For each (prompt id, turns) the longest ending that fits on all sides, or None; rows stay aligned."""
    fits: list[Fitted | None] = [None] * len(rows)
    starts = {row: wording.start(turns) for row, (_, turns) in enumerate(rows)}
    while starts:
        tried = _encoded(rows, starts, tokenizer, wording, seed)
        for row, fitted in tried.items():
            if max(map(len, fitted.ids.values())) <= max_prompt_tokens:
                fits[row] = fitted
        later = {row: _next_start(rows[row][1], starts[row]) for row in starts if fits[row] is None}
        starts = {row: start for row, start in later.items() if start is not None}
    return fits


def _encoded(
    rows: Sequence[tuple[str, Sequence[Turn]]],
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
    ids = iter(encode(tokenizer, [text for sides in texts.values() for text in sides.values()]))
    return {
        row: Fitted(indices[row], sides, {side: next(ids) for side in sides}, starts[row])
        for row, sides in texts.items()
    }


def _next_start(turns: Sequence[Turn], start: int) -> int | None:
    """Where the conversation begins without its oldest user turn and the answers to it."""
    later = (i for i in range(start + 1, len(turns)) if turns[i].role == "user")
    return next(later, None)


def _human_answers(
    kept: Sequence[tuple[Prompt, Fitted]], tokenizer, tally: Tally
) -> dict[str, dict[str, list[int] | None]]:
    """The ids of the human pair of every training prompt that has one; what cannot be used is counted."""
    none = dict.fromkeys(HUMAN)
    paired = [(p, f) for p, f in kept if p.split == "train" and p.chosen is not None and p.rejected is not None]
    texts = [f.texts[side] + getattr(p, name) for p, f in paired for name in HUMAN for side in SIDES]
    ids = iter(encode(tokenizer, texts))
    found: dict[str, dict[str, list[int] | None]] = {prompt.id: none for prompt, _ in kept}
    eos = tokenizer.eos_token_id
    for prompt, fitted in paired:
        contexts = [fitted.ids[side] for side in SIDES]
        joined = {name: [next(ids) for _ in SIDES] for name in HUMAN}
        try:
            answers = {name: answer_ids(contexts, joined[name], eos) for name in HUMAN}
            found[prompt.id] = {name: with_eos(answer, True, eos)[0] for name, answer in answers.items()}
        except BadRow as reason:
            tally.trim(f"prompt {prompt.id}", f"{LEFT_OUT}: {reason}")
    return found


def _context(prompt: Prompt, wording: Wording, fitted: Fitted, human: dict[str, list[int] | None]) -> Context:
    return Context(
        prompt_id=prompt.id,
        question=prompt.turns[-1].content,
        category=prompt.category,
        wording=wording.label(fitted.index),
        plain_ids=fitted.ids["plain"],
        positive_ids=fitted.ids["positive"],
        negative_ids=fitted.ids["negative"],
        dropped_turns=fitted.dropped_turns,
        chosen_ids=human["chosen"],
        rejected_ids=human["rejected"],
    )
