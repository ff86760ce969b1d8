"""Whether a model is a chat model, told by its files: what `prompts.format=auto` goes by.

A chat template alone says nothing: many base models carry the one of their chat sibling. What separates the two is
what they were trained to end with. A chat model's EOS is a token of its template, which names it and closes every
turn with it, the user's too (<|im_end|>, <|eot_id|>, <end_of_turn>); a base model's is the one that ends a document.
Where a template closes turns with whatever the EOS is, or the assistant's turns alone (Llama 2, Mistral, Zephyr), the
two cannot be told apart.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from dlma import files
from dlma.model.load import ModelSpec
from dlma.model.tokens import closes_every_turn, turn_end

CHAT, TEMPLATE = "chat", "template"


def format_of(spec: ModelSpec) -> tuple[str, str]:
    """The format of prompts for a model, and the line to say of it, with the other one; empty where none is needed."""
    if spec.chat is not None:
        return (CHAT if spec.chat else TEMPLATE), ""
    if not _has_template(spec.folder):  # told without transformers, whose import takes seconds
        return TEMPLATE, ""
    found, why = told_by(spec.tokenizer, _ends_in(spec))
    other = {CHAT: "prompts.format=template writes plain text", TEMPLATE: "prompts.format=chat takes the template"}
    return found, f"{spec.name}: {why}: prompts.format={found}; {other[found]}" if why else ""


def told_by(tokenizer, ends: Collection[int]) -> tuple[str, str]:
    """The format and what decides it, by the tokenizer and the EOS ids of the generation config.

    The reason is empty where there is no chat template, so that nothing is to be decided.
    """
    if not tokenizer.chat_template:
        return TEMPLATE, ""
    end = turn_end(tokenizer, {})
    if end is not None and end in ends and _is_mark_of_turns(tokenizer, end):
        return CHAT, f"a chat model: it ends with {_name(tokenizer, end)}, which closes every turn of its template"
    return TEMPLATE, "its chat template may be a base model's too: no EOS of its own closes every turn there"


def _is_mark_of_turns(tokenizer, end: int) -> bool:
    """Whether an id is a token of conversations: the template names it and closes every turn with it.

    What begins texts or stands for the unknown too is the one token of a base model (<|endoftext|>).
    """
    named = _name(tokenizer, end) in str(tokenizer.chat_template)
    base = end in (tokenizer.bos_token_id, tokenizer.unk_token_id)
    return named and not base and closes_every_turn(tokenizer, end)


def _name(tokenizer, token: int) -> str:
    return tokenizer.convert_ids_to_tokens(token)


def _has_template(folder: Path) -> bool:
    """Whether a tokenizer's files hold a chat template, wherever transformers looks for one."""
    alone = any(
        (folder / name).exists() for name in ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
    )
    return alone or bool(files.read_json(folder / "tokenizer_config.json").get("chat_template"))


def _ends_in(spec: ModelSpec) -> Collection[int]:
    """The EOS ids of a model's generation config; of its config where that names none."""
    for name in ("generation_config.json", "config.json"):
        if (found := files.read_json(spec.folder / name).get("eos_token_id")) is not None:
            return ids_of(found)
    return set()


def ids_of(value: int | list[int] | None) -> set[int]:
    """An `eos_token_id` of a config as ids: it is one, several or None."""
    return set() if value is None else set(value) if isinstance(value, list | tuple) else {value}
