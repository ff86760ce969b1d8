"""A prompt wording: the text that precedes an answer, plain and from both sides of a contrastive pair.

One wording serves sampling, scoring and training; it differs from side to side only in the system text and
the affix, both empty on the plain side. Wordings are YAML (conf/prompts): they are an experimental variable.
Only the named placeholders are filled; any other brace, in a template or in a person's text, is plain text.
With `format: chat` the conversation goes into the tokenizer's own chat template instead (prompts/rendering.py);
`auto` is one of the two, as the model is a chat model or not, and is settled before anything is rendered.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Literal

from dlma.errors import UserError
from dlma.records import Turn

SIDES = ("plain", "positive", "negative")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
_PARTS = ("system", "affix")
_SLOTS = (*_PARTS, "text")


class Wording:
    """Templates of a conversation and the pairs of system texts and affixes that make it contrastive.

    `system` holds {system} and is left out where a side has no system text; `user` and `assistant` hold
    {text}, for each turn; `answer` may hold {affix} and comes last.
    With format "chat" those four rest: the affix is joined by `chat_join`, with {text} and {affix}, to the last user
    turn or to the system turn (`chat_affix`), and `chat_options` are variables that the chat template reads.
    """

    def __init__(
        self,
        *,
        source: str,
        system: str,
        user: str,
        assistant: str,
        answer: str,
        pairs: Sequence[Mapping[str, Mapping[str, str]]],
        format: Literal["auto", "template", "chat"],
        chat_affix: Literal["user", "system"],
        chat_join: str,
        chat_options: Mapping[str, bool | int | str],
    ) -> None:
        _check_template("system", system, allowed="system", needed=False)
        _check_template("user", user, allowed="text", needed=True)
        _check_template("assistant", assistant, allowed="text", needed=True)
        _check_template("answer", answer, allowed="affix", needed=False)
        self.source = source
        self.system = system
        self.user = user
        self.assistant = assistant
        self.answer = answer
        self.pairs = _checked_pairs(pairs)
        self.format: str = format
        self.chat_affix = chat_affix
        self.chat_join = chat_join
        self.chat_options = dict(chat_options)
        if sorted(_PLACEHOLDER.findall(chat_join)) != ["affix", "text"]:
            raise UserError("prompts.chat_join: must hold {text} and {affix}, once each")
        if format != "chat":
            self._check_used()

    @property
    def is_chat(self) -> bool:
        """Whether the tokenizer's chat template is used; raises UserError while the format is not settled."""
        if self.format == "auto":
            raise UserError("prompts.format=auto: is settled by a run that has a model; here say chat or template")
        return self.format == "chat"

    def _check_used(self) -> None:
        """A text that no template shows would be a setting that is silently ignored."""
        for part, template in (("system", self.system), ("affix", self.answer)):
            stated = any(pair[side][part] for pair in self.pairs for side in pair)
            if stated and f"{{{part}}}" not in template:
                key = "answer" if part == "affix" else "system"
                raise UserError(f"prompts.{key}: has no {{{part}}}, but prompts.pairs give a text for it")

    def spoken(self, format: str) -> Wording:
        """The same wording in one of the two formats."""
        other = copy.copy(self)
        other.format = format
        return other

    def choose(self, prompt_id: str, seed: int) -> int:
        """The index of the pair drawn for a prompt: uniform, and fixed by the prompt and the seed."""
        digest = hashlib.sha256(f"wording\x1f{seed}\x1f{prompt_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % len(self.pairs)

    def start(self, turns: Sequence[Turn]) -> int:
        """Where a conversation can begin: a chat begins with a user turn."""
        users = (i for i, turn in enumerate(turns) if turn.role == "user")
        return next(users, 0) if self.is_chat else 0

    def messages(self, turns: Sequence[Turn], side: str, index: int, own: str = "") -> list[dict[str, str]]:
        """The conversation as a chat: roles in turn, the side's system text and affix in their places.

        own: the system text that the template writes where it is given none; an affix joins it, and does not replace it
        """
        texts = self._texts(side, index)
        talk = [(r, "\n\n".join(t.content for t in g)) for r, g in groupby(turns, key=lambda turn: turn.role)]
        system = texts["system"]
        if self.chat_affix == "system":
            system = self._joined(system or (own if texts["affix"] else ""), texts["affix"])
        else:
            talk[-1] = (talk[-1][0], self._joined(talk[-1][1], texts["affix"]))
        named = [("system", system), *talk] if system else talk
        return [{"role": role, "content": content} for role, content in named]

    def _joined(self, text: str, affix: str) -> str:
        if not (text and affix):
            return text or affix
        values = {"text": text, "affix": affix}
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.chat_join)

    def _texts(self, side: str, index: int) -> dict[str, str]:
        if side not in SIDES:
            raise ValueError(f"side {side!r} is not one of {', '.join(SIDES)}")
        return self.pairs[index][side] if side != "plain" else dict.fromkeys(_PARTS, "")

    def render(self, turns: Sequence[Turn], side: str, index: int) -> str:
        """The whole text that precedes the answer, by the wording's own templates."""
        texts = self._texts(side, index)
        head = self.system.replace("{system}", texts["system"]) if texts["system"] else ""
        templates = {"user": self.user, "assistant": self.assistant}
        body = [templates[turn.role].replace("{text}", turn.content) for turn in turns]
        return head + "".join(body) + self.answer.replace("{affix}", texts["affix"])

    def label(self, index: int) -> str:
        """A short name of a pair for records and reports."""
        sides = (" ".join(filter(None, self.pairs[index][side].values())) for side in SIDES[1:])
        return f"{index}: " + " | ".join(_short(side) for side in sides)


def _short(text: str, limit: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _check_template(key: str, template: object, *, allowed: str, needed: bool) -> None:
    if not isinstance(template, str):
        raise UserError(f"prompts.{key}: is of type {type(template).__name__}, not text")
    names = _PLACEHOLDER.findall(template)
    for name in names:
        if name != allowed:
            raise UserError(f"prompts.{key}: unknown placeholder {{{name}}}; it knows {{{allowed}}}")
    if needed and not names:
        raise UserError(f"prompts.{key}: must hold {{{allowed}}}, where the text goes")


def _checked_pairs(pairs: object) -> list[dict[str, dict[str, str]]]:
    if isinstance(pairs, str) or not isinstance(pairs, Sequence) or not pairs:
        raise UserError("prompts.pairs: must be a list of at least one pair, positive and negative")
    return [_checked_pair(f"prompts.pairs[{i}]", pair) for i, pair in enumerate(pairs)]


def _checked_pair(key: str, pair: object) -> dict[str, dict[str, str]]:
    if not isinstance(pair, Mapping) or set(pair) != {"positive", "negative"}:
        raise UserError(f"{key}: must hold positive and negative, and nothing else")
    found = {side: _checked_side(f"{key}.{side}", pair[side]) for side in ("positive", "negative")}
    if not any(text for side in found.values() for text in side.values()):
        raise UserError(f"{key}: both sides are empty, so nothing tells them apart; give an affix or a system text")
    return found


def _checked_side(key: str, side: object) -> dict[str, str]:
    if not isinstance(side, Mapping):
        raise UserError(f"{key}: must hold a system text, an affix, or both")
    for name, text in side.items():
        if name not in _PARTS:
            raise UserError(f"{key}.{name}: unknown; a side holds {' and '.join(_PARTS)}")
        if not isinstance(text, str):
            raise UserError(f"{key}.{name}: is of type {type(text).__name__}, not text")
        if slots := [slot for slot in _PLACEHOLDER.findall(text) if slot in _SLOTS]:
            raise UserError(f"{key}.{name}: {{{slots[0]}}} is filled in a template only, and would stand here as it is")
    return {part: side.get(part, "") for part in _PARTS}
