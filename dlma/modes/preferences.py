"""Scored pairs as a preference data set: TRL's columns, LLaMA-Factory's description of them, and OpenAI's form.

`margin` is the self-reward of chosen over rejected in nats, so it is negative where the label goes against it. The
reference columns are log-probs of the whole answers, nats, under the model that was aligned. Texts are what the policy
saw: an answer is what it adds to its context when both are decoded together, and every row is encoded again to see
whether it comes back as the ids that were trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dlma import files
from dlma.errors import BadRow, UserError
from dlma.model.tokens import MOVED, in_front
from dlma.prompts.rendering import rendered, rendered_ids
from dlma.prompts.wording import Wording
from dlma.records import Account, Prompt, ScoredPair, Turn

TRL, FACTORY, DESCRIPTION = "train.jsonl", "llama_factory.jsonl", "dataset_info.json"
OPENAI = "openai.jsonl"
ANSWERS = ("positive", "negative")
HALF = "\ufffd"  # what decoders write for bytes that are no whole character
HALVED = "a character that the length limit cut in half, left out"
UNKNOWN = "conversation not among the run's prompts"
UNEVEN = "turns that do not alternate (LLaMA-Factory)"
_TEXT = {"file_name": TRL, "ranking": True, "columns": {c: c for c in ("prompt", "chosen", "rejected")}}
_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


@dataclass(frozen=True)
class Said:
    """A pair as text: what precedes the answers (the chat itself in format "chat"), and both answers by side.

    halved: an answer was cut inside a character, which is left out
    same: the tokenizer gives these texts the ids that the policy saw
    """

    prompt: str | list[dict[str, str]]
    answers: dict[str, str]
    halved: bool
    same: bool


class Speech:
    """From the ids of a run's pairs to text, context and answer decoded together, and back again.

    format: "chat" gives the conversation as turns, "text" the context as the model saw it
    """

    def __init__(self, tokenizer, wording: Wording, *, format: Literal["chat", "text"]) -> None:
        self.tokenizer = tokenizer
        self.wording = wording
        self.format = format
        self.front = in_front(tokenizer)

    def said(self, pair: ScoredPair, turns: Sequence[Turn]) -> Said:
        """The pair as text; raises BadRow where an answer has no text of its own behind its context."""
        context = pair.plain_context_ids
        start = len(self.front) if context[: len(self.front)] == self.front else 0  # a reader's tokenizer adds it
        before = self._decoded(context[start:])
        begun = self._rendered(turns) if self.format == "chat" else before
        same, halved, answers = self._ids(begun) == context, False, {}
        for side in ANSWERS:
            ids, finished = getattr(pair, f"{side}_ids"), getattr(pair, f"{side}_finished")
            body = ids[:-1] if finished else ids
            whole = self._decoded([*context[start:], *body])
            if not whole.startswith(before):
                raise BadRow(MOVED)
            answers[side] = whole[len(before) :]
            back = self._ids(begun + answers[side]) == [*context, *body]
            if answers[side].endswith(HALF) and not (finished or back):
                halved, answers[side] = True, answers[side].rstrip(HALF)
            same = same and back
        if not all(text.strip() for text in answers.values()):
            raise BadRow("empty answer")
        return Said(_messages(turns) if self.format == "chat" else before, answers, halved, same)

    def _rendered(self, turns: Sequence[Turn]) -> str:
        return rendered(self.tokenizer, self.wording, turns[self.wording.start(turns) :], "plain", 0)

    def _decoded(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _ids(self, text: str) -> list[int]:
        """As a reader of the export encodes it: a chat by its template or the wording's, a text by the tokenizer."""
        if self.format == "chat":
            return rendered_ids(self.tokenizer, self.wording, [text])[0]
        return self.tokenizer(text, verbose=False)["input_ids"]


def write_pairs(
    folder: Path,
    pairs: Sequence[ScoredPair],
    prompts: dict[str, Prompt],
    speech: Speech,
    *,
    name: str,
    sided: bool = True,
) -> tuple[Account, int]:
    """train.jsonl for TRL, and what LLaMA-Factory needs beside it; chats in OpenAI's form too.

    prompts: the conversations by prompt id, for format "chat"
    sided: whether each answer's side is written too
    returns: the account of the pairs, and how many of them have texts with other ids than those of the run
    """
    account, changed, rows = Account(read=len(pairs)), 0, []
    for pair in pairs:
        known = prompts.get(pair.prompt_id)
        if speech.format == "chat" and known is None:
            account.drop(UNKNOWN)
            continue
        try:
            said = speech.said(pair, known.turns if known else [])
        except BadRow as reason:
            account.drop(str(reason))
            continue
        rows.append(_row(pair, said, sided))
        changed += not said.same
        if said.halved:
            account.trim(HALVED)
    if not rows:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in account.dropped.items())
        raise UserError(f"mode.format={speech.format}: no pair can be written ({reasons}); try the other format")
    account.kept = len(rows)
    _write(folder / TRL, rows)
    if speech.format == "chat":
        _write(folder / OPENAI, map(_for_openai, rows))
    described = _described(folder, rows, account) if speech.format == "chat" else _TEXT
    files.write_bytes(folder / DESCRIPTION, (json.dumps({name: described}, indent=2) + "\n").encode())
    return account, changed


def _described(folder: Path, rows: Sequence[dict], account: Account) -> dict:
    """LLaMA-Factory's own file of chats, and its description."""
    even = [row for row in rows if _alternates(row["prompt"])]
    if len(even) < len(rows):
        account.trimmed[UNEVEN] = len(rows) - len(even)
    _write(folder / FACTORY, map(_for_factory, even))
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    return {"file_name": FACTORY, "ranking": True, "formatting": "sharegpt", "columns": columns, "tags": _TAGS}


def _messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _row(pair: ScoredPair, said: Said, sided: bool) -> dict:
    """The prompt, the texts of both answers, and the columns beside them."""
    sides = {"chosen": pair.chosen, "rejected": "negative" if pair.chosen == "positive" else "positive"}
    texts = {name: said.answers[side] for name, side in sides.items()}
    chat = not isinstance(said.prompt, str)
    return {
        "prompt": said.prompt,
        **({name: [{"role": "assistant", "content": text}] for name, text in texts.items()} if chat else texts),
        "margin": pair.margin if pair.chosen == "positive" else -pair.margin,
        **{f"{name}_finished": getattr(pair, f"{side}_finished") for name, side in sides.items()},
        **({f"{name}_side": side for name, side in sides.items()} if sided else {}),
        **{f"{name}_reference_logp": getattr(pair, f"{side}_reference") for name, side in sides.items()},
        "prompt_id": pair.prompt_id,
        "wording": pair.wording,
    }


def _alternates(turns: Sequence[dict]) -> bool:
    return len(turns) % 2 == 1 and all(t["role"] == ("user", "assistant")[i % 2] for i, t in enumerate(turns))


def _for_factory(row: dict) -> dict:
    answers = {side: row[side][0] for side in ("chosen", "rejected")}
    return {"conversations": row["prompt"], **answers, "margin": row["margin"]}


def _for_openai(row: dict) -> dict:
    """As its preference tuning reads a pair."""
    asked = {"messages": row["prompt"], "tools": [], "parallel_tool_calls": True}
    return {"input": asked, "preferred_output": row["chosen"], "non_preferred_output": row["rejected"]}


def _write(path: Path, rows: Iterable[dict]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    files.write_bytes(path, "".join(lines).encode("utf-8", "replace"), as_is=True)
