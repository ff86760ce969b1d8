"""From text to token ids: BOS as the tokenizer has it, people's text as characters, one end of an answer at most.

A plain text begins as `tokenizer(text)` begins, a chat template's as `apply_chat_template(tokenize=True)`, and no text
with two BOS. A special token that a person's text spells out is characters, never the token (`Characters`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from dlma.errors import BadRow
from dlma.model import chat_template
from dlma.records import Turn

MOVED = "moved boundary"
EARLY_END = "EOS inside the answer"
SPELT = "a special token in the text that the tokenizer cannot write as characters"
GUARD = "\ufdd0"  # a noncharacter of Unicode, which no text holds
_ASKED, _ANSWER = "what is asked", "the answer itself"
NO_ROW = "a token that the model has no row for"


def encode(tokenizer, texts: Iterable[str], *, chat: bool = False) -> list[list[int]]:
    """Token ids of whole texts, with what the tokenizer itself puts in front of a text, and never two BOS.

    chat: the texts come from a chat template, which writes its BOS itself or wants none
    """
    texts = list(texts)
    if not texts:
        return []
    front = [] if chat else in_front(tokenizer)
    return [_one_bos(front, row, tokenizer.bos_token_id) for row in tokenized(tokenizer, texts)]


def in_front(tokenizer) -> list[int]:
    """The ids that the tokenizer itself puts in front of a text: its BOS, if it adds one."""
    return _around(tokenizer)[0]


def _around(tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer itself puts in front of a text and behind it."""
    alone = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    places = [i for i in range(len(whole)) if whole[i : i + len(alone)] == alone]
    return (list(whole[: places[0]]), list(whole[places[0] + len(alone) :])) if places else ([], [])


def tokenized(tokenizer, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
    """The ids of each text, without its guards; special: with the tokens that the tokenizer adds around a text."""
    options = {"add_special_tokens": special, "verbose": False}
    rows = [list(row) for row in tokenizer(list(texts), **options)["input_ids"]]
    for number, text in enumerate(texts):
        if GUARD in text:
            rows[number] = _unguarded(tokenizer, text, options) if tokenizer.is_fast else _in_pieces(tokenizer, text)
            if special and not tokenizer.is_fast:
                front, back = _around(tokenizer)
                rows[number] = [*front, *rows[number], *back]
    return rows


def _unguarded(tokenizer, text: str, options: Mapping[str, bool]) -> list[int]:
    found = tokenizer(text, return_offsets_mapping=True, **options)
    places = zip(found["input_ids"], found["offset_mapping"], strict=True)
    return [token for token, (start, end) in places if set(text[start:end]) != {GUARD}]


def _in_pieces(tokenizer, text: str) -> list[int]:
    """The ids of the text's pieces between guards, for a tokenizer in Python, which does not say where a token lies."""
    return [i for piece in text.split(GUARD) for i in tokenizer(piece, add_special_tokens=False)["input_ids"]]


def _one_bos(front: Sequence[int], ids: list[int], bos: int | None) -> list[int]:
    """The ids after `front`; a BOS that the text itself begins with is the one that is counted."""
    if bos is None:
        return [*front, *ids]
    start = 0
    while ids[start : start + 1] == [bos]:
        start += 1
    return [bos, *ids[start:]] if start else [*front, *ids]


def special_names(tokenizer) -> dict[str, int]:
    """The texts that a tokenizer reads as control tokens, with their ids.

    Those that it calls special, and what its chat template writes around turns, whatever it is called.
    """
    added = {token.content: (index, token.special) for index, token in tokenizer.added_tokens_decoder.items()}
    names = {content: index for content, (index, special) in added.items() if special}
    names |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    talk = _written(tokenizer, [("user", "a"), ("assistant", "b"), ("user", "c")], {})
    marks = {content: index for content, (index, _) in added.items() if content in talk and not content.isalnum()}
    return names | marks


def turn_end(tokenizer, options: Mapping[str, object]) -> int | None:
    """The id that ends an assistant's turn: what the chat template writes after one; EOS where that is no token.

    options: variables of the template
    """
    text = _written(tokenizer, [("user", "a"), ("assistant", _ANSWER)], options)
    tail = text.rpartition(_ANSWER)[2].lstrip() if _ANSWER in text else ""
    found = [(name, index) for name, index in special_names(tokenizer).items() if tail.startswith(name)]
    return max(found, key=lambda one: len(one[0]))[1] if found else tokenizer.eos_token_id


def closes_every_turn(tokenizer, end: int) -> bool:
    """Whether the chat template writes the token after a user's turn too, as it does after an assistant's."""
    text = _written(tokenizer, [("user", _ASKED), ("assistant", _ANSWER)], {})
    return text.partition(_ASKED)[2].lstrip().startswith(tokenizer.convert_ids_to_tokens(end))


def _written(tokenizer, talk: Sequence[tuple[str, str]], options: Mapping[str, object]) -> str:
    """A conversation by the tokenizer's chat template; empty where there is none, or none for such a talk."""
    if not tokenizer.chat_template:
        return ""
    messages = [{"role": role, "content": content} for role, content in talk]
    try:
        return chat_template.written(tokenizer, messages, options)
    except chat_template.Refused:
        return ""


class Characters:
    """Makes what a person's text spells of special tokens characters, for `encode` to read them as such.

    A guard behind the first character of each keeps the tokenizer from seeing the token; it has no id of its own.
    """

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        self.names = special_names(tokenizer)
        longest = sorted(filter(None, self.names), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest)) or r"(?!)")

    def __call__(self, text: str) -> str:
        """The text, guarded; ordinary text as it is."""
        return self._pattern.sub(lambda found: found[0][0] + GUARD + found[0][1:], text)

    def checked(self, text: str) -> str:
        """The text, guarded; raises BadRow where this tokenizer cannot write it as characters."""
        guarded = self(text)
        if GUARD in guarded:
            (ids,) = tokenized(self.tokenizer, [guarded])
            read = self.tokenizer.decode(ids, skip_special_tokens=False)
            spelt = self._pattern.findall(text)
            if GUARD in text or not set(ids).isdisjoint(self.names.values()) or any(one not in read for one in spelt):
                raise BadRow(SPELT)
        return guarded

    def turns(self, turns: Iterable[Turn]) -> list[Turn]:
        """The turns with guarded texts; raises BadRow as `checked` does."""
        return [Turn(turn.role, self.checked(turn.content)) for turn in turns]

    def answer(self, text: str, end: int | None) -> str:
        """An answer, guarded; where it ends with its EOS spelt out, that is its end.

        end: the id that ends an answer here
        raises: BadRow where an EOS is spelt inside it, and as `checked` does
        """
        ending = next((name for name, index in self.names.items() if index == end), "")
        ends = [name for name in (ending, self.tokenizer.eos_token) if name]
        told = next((name for name in ends if text.rstrip().endswith(name)), None)
        body = text if told is None else text.rstrip().removesuffix(told)
        if any(name in body for name in ends):
            raise BadRow(EARLY_END)
        return self.checked(body) + (ending if told else "")


def answer_ids(contexts: list[list[int]], joined: list[list[int]], eos: int | None) -> list[int]:
    """The answer's ids after the contexts; raises BadRow where they depend on the context."""
    if any(whole[: len(context)] != context for whole, context in zip(joined, contexts, strict=True)):
        raise BadRow(MOVED)
    found = [whole[len(context) :] for whole, context in zip(joined, contexts, strict=True)]
    if any(ids != found[0] for ids in found):
        raise BadRow(MOVED)
    if eos in found[0][:-1]:
        raise BadRow(EARLY_END)
    if not found[0] or found[0] == [eos]:
        raise BadRow("empty answer")
    return found[0]


def require_rows(ids: Iterable[Iterable[int]], vocabulary: int | None) -> None:
    """Raises BadRow where some ids, such as those of tokens that were added later, lie beyond the model's rows."""
    if vocabulary is not None and any(token >= vocabulary for row in ids for token in row):
        raise BadRow(NO_ROW)


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
