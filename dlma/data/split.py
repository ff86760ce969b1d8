"""From parsed rows to prompts: duplicates removed, a nested subset taken, splits given by prompt hash.

A prompt's split depends on its own text alone: not on the file, its order, the run's seed or the other
prompts, so no prompt is in two splits and a held-out prompt stays held out when the data grow. The one exception
is a set so small that training or test would be empty: then the nearest prompt is moved.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from dlma.data.text import BadRow, Tally, check_prompt, prompt_id
from dlma.errors import UserError
from dlma.records import Account, Prompt, Turn, content_id

DUPLICATE = "duplicate prompt"
BEYOND = "beyond data.max_prompts"
TOO_MANY_WORDS = "last turn longer than data.max_words"
SHORTENED = "oldest turns dropped to fit data.max_words"


@dataclasses.dataclass(frozen=True)
class Found:
    """One row's prompt and human pair, before it has an id and a split; `trimmed` says what was cut off.

    `chosen` alone is an answer without a rival, such as that of an instruction.
    """

    turns: list[Turn]
    category: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    trimmed: tuple[str, ...] = ()


Parse = Callable[[dict], Found | list[Found]]  # a row may hold several pairs


def position(prompt: str, salt: str) -> float:
    """A prompt's fixed place in [0, 1), uniform over prompts and independent between salts."""
    return int(hashlib.sha256(f"{salt}\x1f{prompt}".encode()).hexdigest()[:13], 16) / 16**13


def split_of(prompt: str, *, validation_share: float, test_share: float) -> str:
    """The split of a prompt id: test, validation or train."""
    place = position(prompt, "split")
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"


def read_prompts(
    rows: Iterable[tuple[str, dict]],
    parse: Parse,
    tally: Tally,
    *,
    source: str,
    max_words: int | None,
    max_prompts: int | None,
    validation_share: float,
    test_share: float,
    every_pair: bool = False,
) -> tuple[list[Prompt], Account]:
    """Prompts in file order and the account; `read` is `kept` plus everything dropped.

    every_pair: each human pair of a prompt is a prompt of its own, in the split of its text
    """
    sizes: dict[str, Any] = {"max_words": max_words, "validation_share": validation_share, "test_share": test_share}
    prompts = distinct_prompts(rows, parse, tally, source=source, every_pair=every_pair, **sizes)
    return _fill(_subset(prompts, max_prompts, tally), source), tally.account


def distinct_prompts(
    rows: Iterable[tuple[str, dict]],
    parse: Parse,
    tally: Tally,
    *,
    source: str,
    max_words: int | None,
    validation_share: float,
    test_share: float,
    every_pair: bool = False,
) -> list[Prompt]:
    """The usable prompts in order, each once, with the split that its text gives it; what is not is counted."""
    prompts: dict[str, Prompt] = {}
    shares = {"validation_share": validation_share, "test_share": test_share}
    for where, row in rows:
        try:
            several = _usable(parse(row), max_words)
        except BadRow as reason:
            tally.account.read += 1
            tally.drop(where, str(reason))
            continue
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        for found in several:
            tally.account.read += 1
            _add(prompts, found, tally, where, every_pair=every_pair, **shares)
    tally.account.kept = len(prompts)
    tally.stop_if_too_many(source, "mend the rows or raise data.max_dropped")
    return list(prompts.values())


def _usable(parsed: Found | list[Found], max_words: int | None) -> list[Found]:
    """What a row holds, each within the limit."""
    several = parsed if isinstance(parsed, list) else [parsed]
    for found in several:
        check_prompt(found.turns)
    return [_within(found, max_words) for found in several]


def _add(
    prompts: dict[str, Prompt],
    found: Found,
    tally: Tally,
    where: str,
    *,
    every_pair: bool,
    validation_share: float,
    test_share: float,
) -> None:
    text = prompt_id(found.turns)
    name = content_id(text, found.chosen or "", found.rejected or "") if every_pair else text
    if name in prompts:
        tally.skip(DUPLICATE)
        prompts[name] = _with_pair(prompts[name], found)
        return
    for reason in found.trimmed:
        tally.trim(where, reason)
    split = split_of(text, validation_share=validation_share, test_share=test_share)
    prompts[name] = Prompt(name, found.turns, split, found.category, found.chosen, found.rejected)


def _within(found: Found, max_words: int | None) -> Found:
    """The row with as many of its latest turns as the limit allows, beginning with a user turn."""
    if max_words is None:
        return found
    words = [len(turn.content.split()) for turn in found.turns]
    if sum(words) <= max_words:
        return found
    starts = [i for i, turn in enumerate(found.turns) if turn.role == "user" and sum(words[i:]) <= max_words]
    if not starts:
        raise BadRow(TOO_MANY_WORDS)
    return dataclasses.replace(found, turns=found.turns[starts[0] :], trimmed=(*found.trimmed, SHORTENED))


def _with_pair(prompt: Prompt, found: Found) -> Prompt:
    """A prompt that has no human pair takes the one that came with its duplicate."""
    if None not in (prompt.chosen, prompt.rejected) or None in (found.chosen, found.rejected):
        return prompt
    return dataclasses.replace(prompt, chosen=found.chosen, rejected=found.rejected)


def _subset(prompts: list[Prompt], max_prompts: int | None, tally: Tally) -> list[Prompt]:
    """The prompts with the smallest places, in file order: a smaller limit takes a subset of a larger one."""
    if max_prompts is None or len(prompts) <= max_prompts:
        return prompts
    taken = {p.id for p in sorted(prompts, key=lambda p: position(p.id, "subset"))[:max_prompts]}
    for _ in range(len(prompts) - max_prompts):
        tally.skip(BEYOND)
    tally.account.kept = max_prompts
    return [p for p in prompts if p.id in taken]


def _fill(prompts: list[Prompt], source: str) -> list[Prompt]:
    """No empty test or training split: the prompt nearest to the border is moved, with all pairs of its text."""
    if {"test", "train"} <= {p.split for p in prompts}:
        return prompts
    texts = [prompt_id(p.turns) for p in prompts]
    order = sorted(set(texts), key=lambda text: position(text, "split"))
    if len(order) < 2:
        raise UserError(f"{source}: one usable prompt; it takes at least 2, one to train on, one to test on")
    for split, nearest in (("test", order[0]), ("train", order[-1])):
        if all(p.split != split for p in prompts):
            pairs = zip(prompts, texts, strict=True)
            prompts = [dataclasses.replace(p, split=split) if text == nearest else p for p, text in pairs]
    return prompts
