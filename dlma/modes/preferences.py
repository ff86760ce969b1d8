"""Scored pairs as a preference data set: TRL's columns, and LLaMA-Factory's description of them.

`margin` is the self-reward of chosen over rejected in nats, so it is negative where the label goes against it. The
reference columns are log-probs of the whole answers, nats, under the model that was aligned.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from dlma import files
from dlma.errors import UserError
from dlma.records import Account, Prompt, ScoredPair, Turn

TRL, FACTORY, DESCRIPTION = "train.jsonl", "llama_factory.jsonl", "dataset_info.json"
UNKNOWN = "conversation not among the run's prompts"
UNEVEN = "turns that do not alternate (LLaMA-Factory)"
_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


def write_pairs(
    folder: Path, pairs: Sequence[ScoredPair], prompts: dict[str, Prompt], tokenizer, *, format: str, name: str
) -> Account:
    """train.jsonl for TRL, and what LLaMA-Factory needs beside it; the account of the pairs.

    prompts: the conversations by prompt id, for format "chat"; tokenizer: gives the prompt's text, for "text"
    """
    account = Account(read=len(pairs))
    rows = []
    for pair in pairs:
        known = prompts.get(pair.prompt_id)
        if format == "chat" and known is None:
            account.drop(UNKNOWN)
        else:
            rows.append(_chat(pair, known.turns) if format == "chat" else _text(pair, tokenizer))
    if not rows:
        raise UserError("mode.format=chat: no pair's conversation is among the run's prompts; use mode.format=text")
    account.kept = len(rows)
    _write(folder / TRL, rows)
    if format == "text":
        described = {"file_name": TRL, "ranking": True, "columns": {c: c for c in ("prompt", "chosen", "rejected")}}
    else:
        even = [row for row in rows if _alternates(row["prompt"])]
        if len(even) < len(rows):
            account.trimmed[UNEVEN] = len(rows) - len(even)
        _write(folder / FACTORY, map(_for_factory, even))
        columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
        described = {"file_name": FACTORY, "ranking": True, "formatting": "sharegpt", "columns": columns, "tags": _TAGS}
    files.write_bytes(folder / DESCRIPTION, (json.dumps({name: described}, indent=2) + "\n").encode())
    return account


def _chat(pair: ScoredPair, turns: Sequence[Turn]) -> dict:
    texts, rest = _answers(pair)
    prompt = [{"role": turn.role, "content": turn.content} for turn in turns]
    answers = {side: [{"role": "assistant", "content": text}] for side, text in texts.items()}
    return {"prompt": prompt, **answers, **rest}


def _text(pair: ScoredPair, tokenizer) -> dict:
    texts, rest = _answers(pair)
    ids = pair.plain_context_ids
    start = 1 if tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id else 0  # the reader adds it
    return {"prompt": tokenizer.decode(ids[start:], clean_up_tokenization_spaces=False), **texts, **rest}


def _answers(pair: ScoredPair) -> tuple[dict[str, str], dict]:
    """The texts of both answers, and the columns beside them."""
    sides = {"chosen": pair.chosen, "rejected": "negative" if pair.chosen == "positive" else "positive"}
    texts = {name: getattr(pair, f"{side}_text") for name, side in sides.items()}
    rest = {
        "margin": pair.margin if pair.chosen == "positive" else -pair.margin,
        **{f"{name}_finished": getattr(pair, f"{side}_finished") for name, side in sides.items()},
        **{f"{name}_side": side for name, side in sides.items()},
        **{f"{name}_reference_logp": getattr(pair, f"{side}_reference") for name, side in sides.items()},
        "prompt_id": pair.prompt_id,
        "wording": pair.wording,
    }
    return texts, rest


def _alternates(turns: Sequence[dict]) -> bool:
    return len(turns) % 2 == 1 and all(t["role"] == ("user", "assistant")[i % 2] for i, t in enumerate(turns))


def _for_factory(row: dict) -> dict:
    answers = {side: row[side][0] for side in ("chosen", "rejected")}
    return {"conversations": row["prompt"], **answers, "margin": row["margin"]}


def _write(path: Path, rows: Iterable[dict]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    files.write_bytes(path, "".join(lines).encode("utf-8", "replace"))
