"""Tokenisation: one BOS in front, an answer's ids as they stand after their context, one EOS at most."""

from __future__ import annotations

from collections.abc import Iterable

from dlma.errors import BadRow

MOVED = "moved boundary"


def encode(tokenizer, texts: Iterable[str]) -> list[list[int]]:
    """Token ids of whole texts, with exactly one BOS in front if the tokenizer has one.

    A BOS that the text's own rendering brings along is the one that is counted; none is added to it.
    """
    texts = list(texts)
    if not texts:
        return []
    bos = tokenizer.bos_token_id
    rows = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return [_one_bos(list(row), bos) for row in rows]


def _one_bos(ids: list[int], bos: int | None) -> list[int]:
    if bos is None:
        return ids
    start = 0
    while start < len(ids) and ids[start] == bos:
        start += 1
    return [bos, *ids[start:]]


def answer_ids(contexts: list[list[int]], joined: list[list[int]], eos: int | None) -> list[int]:
    """The answer's ids after the contexts; raises BadRow where they depend on the context."""
    if any(whole[: len(context)] != context for whole, context in zip(joined, contexts, strict=True)):
        raise BadRow(MOVED)
    found = [whole[len(context) :] for whole, context in zip(joined, contexts, strict=True)]
    if any(ids != found[0] for ids in found):
        raise BadRow(MOVED)
    if eos in found[0][:-1]:
        raise BadRow("EOS inside the answer")
    if not found[0] or found[0] == [eos]:
        raise BadRow("empty answer")
    return found[0]


def with_eos(ids: list[int], finished: bool, eos: int | None) -> tuple[list[int], bool]:
    """The ids with their EOS, and whether they end with one; an EOS that the text itself holds is kept."""
    if eos is None:
        return ids, False
    if ids[-1] == eos:
        return ids, True
    return ([*ids, eos], True) if finished else (ids, False)


def pieces(tokenizer, ids: list[int]) -> list[str]:
    """The text of each id where it stands: what it adds to the id before it (a leading space is lost otherwise)."""
    alone = [tokenizer.decode([token], skip_special_tokens=False) for token in ids]
    couples = [tokenizer.decode(ids[i - 1 : i + 1], skip_special_tokens=False) for i in range(1, len(ids))]
    rest = [
        both.removeprefix(before) if both.startswith(before) else own
        for both, before, own in zip(couples, alone, alone[1:])
    ]
    return alone[:1] + rest
