"""A tokenizer's chat template: a conversation as text, or why there is none. No template ends in a traceback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlma.model import today

_ASKED, _TOLD = "what the user asks", "what the system is told"
_in_parts: dict[str, bool] = {}  # by template
_own_system: dict[str, str] = {}  # by options and template


class Refused(Exception):
    """A template that cannot write a conversation, with the reason in one line."""


def written(tokenizer, messages: Sequence[Mapping[str, str]], options: Mapping[str, object]) -> str:
    """The conversation by the tokenizer's chat template, on the pinned day.

    Templates of models that also see images want a message's content as a list of parts; they get it so.
    options: variables of the template; `chat_template` names one of several
    raises: Refused where the template raises whatever it is, or leaves out what a user says in either form
    """
    template = f"{options.get('chat_template')} {tokenizer.chat_template}"
    if template not in _in_parts:
        _in_parts[template] = _wants_parts(tokenizer, options)
    return _applied(tokenizer, _parts(messages) if _in_parts[template] else messages, options)


def own_system(tokenizer, options: Mapping[str, object]) -> str:
    """The system text that the template writes where a conversation has none; empty where it writes none.

    It is what stands between the same two texts as a given one. raises: Refused where the template writes nothing
    """
    key = f"{sorted(options.items())} {tokenizer.chat_template}"
    if key not in _own_system:
        _own_system[key] = _read_own_system(tokenizer, options)
    return _own_system[key]


def _read_own_system(tokenizer, options: Mapping[str, object]) -> str:
    asked, told = {"role": "user", "content": _ASKED}, {"role": "system", "content": _TOLD}
    alone = written(tokenizer, [asked], options)
    try:
        before, found, after = written(tokenizer, [told, asked], options).partition(_TOLD)
    except Refused:  # it takes no system turn
        return ""
    room = len(alone) - len(before) - len(after)
    held = found and room > 0 and alone.startswith(before) and alone.endswith(after)
    return alone[len(before) : len(before) + room] if held else ""


def _wants_parts(tokenizer, options: Mapping[str, object]) -> bool:
    """Whether a plain text is left out, and a list of parts is not; raises Refused where both are."""
    asked = [{"role": "user", "content": _ASKED}]
    try:
        if _ASKED in _applied(tokenizer, asked, options):
            return False
    except Refused:  # of this conversation perhaps, of others not
        return False
    if _ASKED in _applied(tokenizer, _parts(asked), options):
        return True
    raise Refused("it leaves out what the user says, given as text or as a list of parts")


def _parts(messages: Sequence[Mapping[str, str]]) -> list[dict]:
    return [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]


def _applied(tokenizer, messages: Sequence[Mapping], options: Mapping[str, object]) -> str:
    from jinja2.exceptions import TemplateError

    try:
        with today.pinned():
            return tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    except (TemplateError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as reason:
        line = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
        raise Refused(line) from None
