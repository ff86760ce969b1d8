"""Prompts by column, as in JSON, Parquet or CSV files: text, or chats of {role, content}, with an optional human pair.

A row is `{"prompt": text}`, `{"prompt": [turns]}`, `{"messages": [turns]}` or, without a prompt, a pair of
whole chats `{"chosen": [turns], "rejected": [turns]}`. Beside a prompt, `category`, `chosen` and `rejected`
(text or turns) are optional.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlma.data.split import Found
from dlma.data.text import BadRow, chat_turns, column, conversation, is_blank, verbatim
from dlma.errors import UserError
from dlma.records import Turn

CUT_ANSWER = "a last assistant turn taken off the prompt"


class Columns:
    """A row with its prompt in one column, or in `messages`, and its category in another."""

    def __init__(self, *, prompt_column: str, category_column: str) -> None:
        self.prompt_column = prompt_column
        self.category_column = category_column

    def found(self, row: dict) -> Found:
        """The prompt, its category and its human pair, if it has them; raises BadRow when there is no prompt."""
        turns, chosen, rejected = answered(row, ("chosen", "rejected"), prompt_column=self.prompt_column)
        kept = without_answer(turns)
        return Found(
            kept,
            category=_category(row.get(self.category_column), self.category_column),
            chosen=chosen,
            rejected=rejected,
            trimmed=(CUT_ANSWER,) if len(kept) < len(turns) else (),
        )


def without_answer(turns: list[Turn]) -> list[Turn]:
    """The turns up to and with the last user turn."""
    ends = [i for i, turn in enumerate(turns, start=1) if turn.role == "user"]
    return turns[: ends[-1]] if ends else turns


def answered(row: Mapping, names: tuple[str, str], *, prompt_column: str) -> tuple[list[Turn], str | None, str | None]:
    """The prompt's turns and the answers in the columns `names`, text as it stands, None where there is none."""
    first, second = (row.get(name) for name in names)
    has_messages = row.get("messages") is not None
    if row.get(prompt_column) is None and not has_messages and isinstance(first, list):
        prompt, other = chat_turns(first, names[0])[:-1], chat_turns(second, names[1])[:-1]
        if prompt != other:
            raise BadRow("prompts differ within the pair")
    elif row.get(prompt_column) is None and has_messages:
        prompt = conversation(row["messages"], "messages")
    else:
        prompt = conversation(column(row, prompt_column), prompt_column)
    return prompt, _answer(first, names[0]), _answer(second, names[1])


def _answer(value: object, name: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        text = verbatim(value, name)
    else:
        turns = chat_turns(value, name)
        text = turns[-1].content if turns and turns[-1].role == "assistant" else ""
    if is_blank(text):
        raise BadRow("empty answer")
    return text


def _category(value: object, name: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise UserError(f"{name} is of type {type(value).__name__}, not text")
