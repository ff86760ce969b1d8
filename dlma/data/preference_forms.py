"""Preference rows of LLaMA-Factory and of OpenAI's tuning, put into the columns that every reader here knows.

LLaMA-Factory: `conversations` of {from, value} with `chosen` and `rejected` (its "sharegpt"), or `instruction` and
`input` with both (its "alpaca"). OpenAI: `input` with its messages, `preferred_output` and `non_preferred_output`.
What says something beside the text (tools, a system text, calls) stays in the row, so that the reader drops it by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlma.data.text import unwritten
from dlma.errors import UserError

_ROLES = {"human": "user", "gpt": "assistant"}  # any other is its own name, which the reader of turns knows or refuses
_OPENAI = ("preferred_output", "non_preferred_output")
_ALPACA = {"instruction", "chosen", "rejected"}


def in_our_columns(row: Mapping[str, Any], prompt_column: str = "prompt") -> Mapping[str, Any]:
    """The row with a prompt, `chosen` and `rejected` where it is of one of these forms; any other as it is."""
    if prompt_column in row:
        return row
    if "conversations" in row:
        answers = {name: _turns(row[name], name) for name in ("chosen", "rejected") if name in row}
        return {**row, prompt_column: _turns(row["conversations"], "conversations"), **answers}
    if all(name in row for name in _OPENAI):
        return {**row, **_of_openai(row, prompt_column)}
    if row.keys() >= _ALPACA:
        return {**row, prompt_column: _of_alpaca(row)}
    return row


def _of_openai(row: Mapping[str, Any], prompt_column: str) -> dict[str, Any]:
    asked = row.get("input")
    known = asked if isinstance(asked, Mapping) else {"messages": asked}
    chosen, rejected = (row[name] for name in _OPENAI)
    beside = {"tools": known["tools"]} if "tools" in known else {}
    return {**beside, prompt_column: known.get("messages"), "chosen": chosen, "rejected": rejected}


def _of_alpaca(row: Mapping[str, Any]) -> Any:
    """The instruction and its input are one turn; `history` holds pairs of an instruction and its answer before it."""
    asked, more = row["instruction"], row.get("input")
    if isinstance(asked, str) and isinstance(more, str) and more:
        asked = f"{asked}\n{more}"
    pairs, before = row.get("history") or [], []
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise UserError("history is no list of pairs, an instruction and its answer")
    for pair in pairs:
        before += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return [*before, {"role": "user", "content": asked}] if before else asked


def _turns(value: Any, name: str) -> Any:
    """Turns of {from, value} as {role, content}; what is none of them as it is."""
    value = unwritten(value, name)
    if isinstance(value, Mapping):
        return _turn(value)
    return [_turn(turn) if isinstance(turn, Mapping) else turn for turn in value] if isinstance(value, list) else value


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    if "from" not in turn:
        return dict(turn)
    rest = {name: value for name, value in turn.items() if name not in ("from", "value")}
    said = turn["from"]
    return {**rest, "role": _ROLES.get(said, said) if isinstance(said, str) else said, "content": turn.get("value")}
