"""Rubrics: what an LLM judge is asked, as data, and the strict parser of its reply."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from dlma.data.text import each_once
from dlma.errors import UserError
from dlma.records import Turn

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NEEDED = {"conversation", "first", "second"}
_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)
_SPEAKERS = {"user": "Human", "assistant": "Assistant"}


class Rubric:
    """The question to a judge about two answers.

    criterion: what is asked for, in a word
    system, template: the messages; the template has {conversation}, {first} and {second}, and asks for a JSON object
        with a `verdict`; what is filled in is not looked at for braces again
    verdicts: the three values of `verdict`: for the first answer, for the second, and for a tie
    reminder: what is said to a reply that could not be read, before it is given up
    """

    def __init__(
        self, *, source: str, criterion: str, system: str, template: str, verdicts: list[str], reminder: str
    ) -> None:
        if set(_PLACEHOLDER.findall(template)) != _NEEDED:
            raise UserError(f"rubric.template: must hold {', '.join('{' + n + '}' for n in sorted(_NEEDED))}, no other")
        if len(verdicts) != 3 or len(set(verdicts)) != 3:
            raise UserError("rubric.verdicts: must be three different texts: the first, the second, a tie")
        self.source = source
        self.criterion = criterion
        self.system = system
        self.template = template
        self.verdicts = verdicts
        self.reminder = reminder

    def messages(self, turns: Sequence[Turn], first: str, second: str) -> list[dict[str, str]]:
        """The chat that asks about two answers to a conversation."""
        conversation = "\n\n".join(f"{_SPEAKERS[turn.role]}: {turn.content}" for turn in turns)
        values = {"conversation": conversation, "first": first.strip(), "second": second.strip()}
        text = _PLACEHOLDER.sub(lambda match: values[match[1]], self.template)
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": text}]

    def again(self, chat: Sequence[dict[str, str]], reply: str) -> list[dict[str, str]]:
        """The chat with the reply that could not be read, and the reminder."""
        said = {"role": "assistant", "content": reply or "(nothing)"}
        return [*chat, said, {"role": "user", "content": self.reminder}]

    def read(self, reply: str) -> str | None:
        """ "win", "lose" or "tie" for the first answer; None for a reply that is not exactly the JSON asked for.

        The object may stand in one code fence; it must have a `verdict` that is one of the three texts, letter by
        letter, and may have a `reason`, and nothing else.
        """
        text = reply.strip()
        fenced = _FENCE.match(text)
        try:
            value = json.loads(fenced[1] if fenced else text, object_pairs_hook=each_once)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict) or set(value) - {"verdict", "reason"}:
            return None
        verdict = value.get("verdict")
        if not isinstance(verdict, str) or verdict not in self.verdicts:
            return None
        return ("win", "lose", "tie")[self.verdicts.index(verdict)]
