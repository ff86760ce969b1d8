"""From parsed rows to prompts: duplicates removed, a nested subset taken, splits given by prompt hash.

A prompt's split depends on its own text alone: not on the file, its order, the run's seed or the other
prompts, so no prompt is in two splits and a held-out prompt stays held out when the data grow. The one exception
is a set so small that training or test would be empty: then the nearest prompt is moved.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable

from dlma.data.text import BadRow, Tally, check_prompt, prompt_id
from dlma.errors import UserError
from dlma.records import Account, Prompt, Turn

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
    parse: Callable[[dict], Found],
    tally: Tally,
    *,
    source: str,
    max_words: int | None,
    max_prompts: int | None,
    validation_share: float,
    test_share: float,
) -> tuple[list[Prompt], Account]:
    """Prompts in file order and the account; `read` is `kept` plus everything dropped."""
    shares = {"validation_share": validation_share, "test_share": test_share}
    prompts = distinct_prompts(rows, parse, tally, source=source, max_words=max_words, **shares)
    return _fill(_subset(prompts, max_prompts, tally), source), tally.account


def distinct_prompts(
    rows: Iterable[tuple[str, dict]],
    parse: Callable[[dict], Found],
    tally: Tally,
    *,
    source: str,
    max_words: int | None,
    validation_share: float,
    test_share: float,
) -> list[Prompt]:
    """The usable prompts in order, each once, with the split that its text gives it; what is not is counted."""
    prompts: dict[str, Prompt] = {}
    for where, row in rows:
        tally.account.read += 1
        try:
            found = parse(row)
            check_prompt(found.turns)
            found = _within(found, max_words)
        except BadRow as reason:
            tally.drop(where, str(reason))
            continue
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        _add(prompts, found, tally, where, validation_share=validation_share, test_share=test_share)
    tally.account.kept = len(prompts)
    tally.stop_if_too_many(source, "mend the rows or raise data.max_dropped")
    return list(prompts.values())


def _add(
    prompts: dict[str, Prompt],
    found: Found,
    tally: Tally,
    where: str,
    *,
    validation_share: float,
    test_share: float,
) -> None:
    name = prompt_id(found.turns)
    if name in prompts:
        tally.skip(DUPLICATE)
        prompts[name] = _with_pair(prompts[name], found)
        return
    for reason in found.trimmed:
        tally.trim(where, reason)
    split = split_of(name, validation_share=validation_share, test_share=test_share)
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
    """No empty test or training split: the prompt nearest to the border is moved."""
    if len(prompts) < 2:
        raise UserError(f"{source}: one usable prompt; it takes at least 2, one to train on, one to test on")
    order = sorted(prompts, key=lambda p: position(p.id, "split"))
    for split, nearest in (("test", order[0].id), ("train", order[-1].id)):
        if all(p.split != split for p in prompts):
            prompts = [dataclasses.replace(p, split=split) if p.id == nearest else p for p in prompts]
    return prompts
