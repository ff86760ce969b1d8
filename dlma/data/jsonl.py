"""Prompts by column, as in JSON, Parquet or CSV files: text, or chats of {role, content}, with an optional human pair.

A row is `{"prompt": text}`, `{"prompt": [turns]}`, `{"messages": [turns]}` or, without a prompt, a pair of
whole chats `{"chosen": [turns], "rejected": [turns]}`. Beside a prompt, `category`, `chosen` and `rejected`
(text, the turns that follow the prompt, or the whole chat) are optional. Rows of LLaMA-Factory and of OpenAI's
preference tuning are read as such (preference_forms.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dlma.data.preference_forms import in_our_columns
from dlma.data.split import Found
from dlma.data.text import (
    BadRow,
    column,
    conversation,
    conversation_turns,
    is_blank,
    prompt_id,
    require_text_only,
    unwritten,
    verbatim,
)
from dlma.errors import UserError
from dlma.records import Turn

CUT_ANSWER = "a last assistant turn taken off the prompt"
_BESIDE_A_PROMPT = ("system", "tools", "functions", "images", "image", "videos", "audios")
UNEQUAL = "prompts differ within the pair"


class Columns:
    """A row with its prompt in one column, or in `messages`, and its category in another, if in any.

    category: that of every row, in place of a column
    """

    def __init__(self, *, prompt_column: str, category_column: str | None, category: str | None) -> None:
        self.prompt_column = prompt_column
        self.category_of = Category(category_column, category).found

    def in_columns(self, row: dict) -> dict:
        """The row with its prompt in the column `prompt`, which readers of any preference file know."""
        return {**row, "prompt": row[self.prompt_column]} if self.prompt_column in row else row

    def found(self, row: dict) -> Found:
        """The prompt, its category and its human pair, if it has them; raises BadRow when there is no prompt."""
        turns, chosen, rejected = answered(row, ("chosen", "rejected"), prompt_column=self.prompt_column)
        kept = without_answer(turns)
        return Found(
            kept,
            category=self.category_of(row),
            chosen=chosen,
            rejected=rejected,
            trimmed=(CUT_ANSWER,) if len(kept) < len(turns) else (),
        )


def without_answer(turns: list[Turn]) -> list[Turn]:
    """The turns up to and with the last user turn."""
    ends = [i for i, turn in enumerate(turns, start=1) if turn.role == "user"]
    return turns[: ends[-1]] if ends else turns


def answered(row: Mapping, names: tuple[str, str], *, prompt_column: str) -> tuple[list[Turn], str | None, str | None]:
    """The prompt's turns and the answers in the columns `names`, text as it stands, None where there is none.

    The last turn of an answer's column is the answer; the turns before it join the prompt, which they may also repeat
    from its beginning, and must be the same on both sides.
    raises: BadRow where the row holds no such conversation, UserError where it holds no text or turns at all
    """
    row = in_our_columns(row, prompt_column)
    require_text_only(row, _BESIDE_A_PROMPT, "a row with")
    sides = {name: _parted(row.get(name), name) for name in names}
    has_prompt = row.get(prompt_column) is not None or row.get("messages") is not None
    if not has_prompt and sides[names[0]].turns:
        prompt = []
    elif row.get(prompt_column) is None and has_prompt:
        prompt = conversation(row["messages"], "messages")
    else:
        prompt = conversation(column(row, prompt_column), prompt_column)
    whole = [_after(prompt, side.turns) for side in sides.values() if side.answer is not None]
    if any(turns != whole[0] for turns in whole):
        raise BadRow(UNEQUAL)
    first, second = (side.answer for side in sides.values())
    return whole[0] if whole else prompt, first, second


@dataclass(frozen=True)
class _Side:
    """What a column of answers holds: the turns before the answer, and the answer, None where there is none."""

    turns: list[Turn]
    answer: str | None


def _parted(value: object, name: str) -> _Side:
    if value is None:
        return _Side([], None)
    value = unwritten(value, name)
    if isinstance(value, str) and not value.startswith("\n\nHuman:"):
        turns = [Turn("assistant", verbatim(value, name))]
    else:
        turns = conversation_turns(value, name)
    if turns and turns[-1].role != "assistant":
        raise BadRow("an answer that is not the assistant's")
    if not turns or is_blank(turns[-1].content):
        raise BadRow("empty answer")
    return _Side(turns[:-1], turns[-1].content)


def _after(prompt: list[Turn], turns: list[Turn]) -> list[Turn]:
    """The conversation up to an answer: the prompt and the turns that follow it, or that begin with it."""
    if not turns:
        return prompt
    if prompt_id(turns[: len(prompt)]) == prompt_id(prompt):
        return turns
    if prompt and not prompt[-1].content:
        raise BadRow("empty prompt")
    if prompt and prompt[-1].role == turns[0].role:
        raise BadRow("turns that neither begin with their prompt nor follow it")
    return [*prompt, *turns]


class Category:
    """Where a row's category is: in a column, if in any, or the same for every row."""

    def __init__(self, column: str | None, every: str | None) -> None:
        if every is not None and column is not None:
            raise UserError("data.format.category: it is that of every row; data.format.category_column=null with it")
        self.column = column
        self.every = every

    def found(self, row: Mapping) -> str | None:
        """The row's category; None where it has none."""
        if self.column is None or row.get(self.column) is None:
            return self.every
        return verbatim(row[self.column], self.column)
