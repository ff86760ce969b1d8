"""Human preference dialogues, in both formats of the HH-RLHF data.

`Anthropic/hh-rlhf` holds `chosen` and `rejected` as whole texts of `Human:` and `Assistant:` turns: the last assistant
turns are the pair, and what precedes them is the prompt, and must be the same. `PKU-Alignment/processed-hh-rlhf` holds
the prompt as turns of {role, text} in `context`, and one such turn each in `chosen` and `rejected`.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlma.data.split import Found
from dlma.data.text import BadRow, clean, column, hh_turns
from dlma.errors import UserError
from dlma.records import Turn

_ROLES = {"human": "user", "assistant": "assistant"}


class HH:
    """A row of either format; which one is seen by its column `context`."""

    def found(self, row: dict) -> Found:
        """The prompt and human pair of one row; raises BadRow when it has none."""
        if row.get("context") is not None:
            prompt, chosen, rejected = _processed(row)
        else:
            prompt, chosen = _parted(row, "chosen")
            other, rejected = _parted(row, "rejected")
            if prompt != other:
                raise BadRow("prompts differ within the pair")
        if not chosen or not rejected:
            raise BadRow("empty answer")
        return Found(prompt, chosen=chosen, rejected=rejected)


def _processed(row: dict) -> tuple[list[Turn], str, str]:
    turns = row["context"]
    if not isinstance(turns, list):
        raise UserError("context is not a list of turns with role and text")
    prompt = [_turn(turn, "context") for turn in turns]
    chosen, rejected = (_turn(column(row, name), name) for name in ("chosen", "rejected"))
    if (chosen.role, rejected.role) != ("assistant", "assistant"):
        raise BadRow("an answer that is not the assistant's")
    return prompt, chosen.content, rejected.content


def _turn(value: object, name: str) -> Turn:
    if not isinstance(value, Mapping):
        raise UserError(f"{name} is not made of turns with role and text")
    role = clean(column(value, "role"), "role")
    if role not in _ROLES:
        raise BadRow("a role other than human and assistant")
    return Turn(_ROLES[role], clean(column(value, "text"), "text"))


def in_columns(row: dict) -> dict:
    """A row in the columns prompt, chosen and rejected, which readers of any preference file know."""
    found = HH().found(row)
    turns = [{"role": turn.role, "content": turn.content} for turn in found.turns]
    return {"prompt": turns, "chosen": found.chosen, "rejected": found.rejected}


def _parted(row: dict, name: str) -> tuple[list[Turn], str]:
    value = column(row, name)
    if isinstance(value, list):
        raise UserError(f"{name} is a list of turns; read such a file with data=jsonl")
    turns = hh_turns(clean(value, name))
    if turns[-1].role != "assistant":
        raise BadRow("no answer after the last Human: turn")
    return turns[:-1], turns[-1].content
