"""The text that precedes an answer: by the wording's own templates, or by the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dlma.errors import UserError
from dlma.model import chat_template
from dlma.model.tokens import encode, turn_end
from dlma.prompts.wording import Wording
from dlma.records import Turn


def rendered(tokenizer, wording: Wording, turns: Sequence[Turn], side: str, index: int) -> str:
    """The whole text up to the answer, special tokens of a chat template spelt out.

    raises: UserError where the tokenizer has no chat template, or its template refuses the conversation
    """
    if not wording.is_chat:
        return wording.render(turns, side, index)
    if not tokenizer.chat_template:
        name = _name(tokenizer)
        raise UserError(
            f"prompts.format=chat: the tokenizer of {name} has no chat template: use prompts.format=template"
        )
    messages = wording.messages(turns, side, index)
    try:
        if wording.chat_affix == "system":
            own = chat_template.own_system(tokenizer, wording.chat_options)
            messages = wording.messages(turns, side, index, own)
        return chat_template.written(tokenizer, messages, {"add_generation_prompt": True, **wording.chat_options})
    except chat_template.Refused as reason:
        line = f"prompts.format=chat: the chat template of {_name(tokenizer)} refuses a conversation: {reason}"
        if messages[0]["role"] == "system":
            line += "; prompts.chat_affix=user and pairs without a system text need no system turn"
        raise UserError(line) from None


def rendered_ids(tokenizer, wording: Wording, texts: Iterable[str]) -> list[list[int]]:
    """The ids of rendered texts, answers behind them or not, with the BOS that belongs in front in this format."""
    return encode(tokenizer, texts, chat=wording.is_chat)


def answer_end(tokenizer, wording: Wording) -> int | None:
    """The id that ends an answer: what the chat template writes after one, or the EOS in a wording's own templates."""
    return turn_end(tokenizer, wording.chat_options) if wording.is_chat else tokenizer.eos_token_id


def begins_with_bos(tokenizer, wording: Wording) -> bool:
    """Whether contexts in this format begin with a BOS."""
    bos = tokenizer.bos_token_id
    return bos is not None and _sample(tokenizer, wording)[0] == bos


def written_ids(tokenizer, wording: Wording) -> frozenset[int]:
    """The ids that a chat template itself writes inside a conversation; none for a wording's own templates."""
    return frozenset(_sample(tokenizer, wording)[1:]) if wording.is_chat else frozenset()


def _sample(tokenizer, wording: Wording) -> list[int]:
    talk = [Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")]
    return rendered_ids(tokenizer, wording, [rendered(tokenizer, wording, talk, "plain", 0)])[0]


def _name(tokenizer) -> str:
    return tokenizer.name_or_path.rstrip("/").rpartition("/")[2] or "this model"
