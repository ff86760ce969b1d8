"""Texts and their token ids: the lab's one-line questions, HH prompts where the file is at hand, a long system text.

Random-weight models have no tokenizer of their own: a small BPE, trained here on these texts, makes the ids, and
they are spread over the model's vocabulary. Lengths are thus those of real text, whatever the vocabulary.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import os
import random
from pathlib import Path

from benchmarks.shapes import REAL, ROOT, Shape

MERGES = 8000
SPECIAL = ["<bos>", "<eos>", "<pad>"]


def hh_file() -> Path | None:
    """The HH prompts: where DLMA_HH_FILE says, or in a folder shared/ beside the checkout; None if at neither."""
    beside = ROOT.parent / "shared" / "data" / "hh-rlhf" / "harmless-base-test.jsonl.gz"
    path = Path(os.environ.get("DLMA_HH_FILE", beside))
    return path if path.is_file() else None


@functools.cache
def questions(count: int) -> list:
    """One-line questions of the lab's world, as conversations."""
    from dlma.lab import world

    return [prompt.turns for prompt in world.prompts("train", count, 0)]


@functools.cache
def hh_conversations(count: int) -> list:
    """HH conversations that end with a user turn, drawn at random; raises FileNotFoundError without the file."""
    from dlma.data.text import BadRow, hh_turns

    path = hh_file()
    if path is None:
        raise FileNotFoundError("the HH prompts are not at hand: set DLMA_HH_FILE")
    found = []
    for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines():
        with contextlib.suppress(BadRow):
            found.append(hh_turns(json.loads(line)["chosen"])[:-1])
    whole = [turns for turns in found if turns and turns[-1].role == "user"]
    return random.Random(0).sample(whole, min(count, len(whole)))


@functools.cache
def hh_pairs(count: int) -> list[tuple[list, str, str]]:
    """Of HH the conversation before the last turn with both answers, drawn at random; raises as `hh_conversations`."""
    from dlma.data.text import BadRow, hh_turns

    path = hh_file()
    if path is None:
        raise FileNotFoundError("the HH pairs are not at hand: set DLMA_HH_FILE")
    found = []
    for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines():
        row = json.loads(line)
        with contextlib.suppress(BadRow):
            one, other = hh_turns(row["chosen"]), hh_turns(row["rejected"])
            if len(one) == len(other) == 2:
                found.append((one[:-1], one[-1].content, other[-1].content))
    return random.Random(0).sample(found, min(count, len(found)))


def wording(name: str):
    """A wording of conf/prompts, by its file's name."""
    from dlma.config import compose
    from dlma.config.build import build
    from dlma.config.help import conf_dir

    return build(compose.plan(compose.search_path(conf_dir(), None), [f"prompts={name}"], False).cfg.prompts)


@functools.cache
def tokenizer():
    """A byte-level BPE trained on the texts at hand."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MERGES,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(_corpus(), trainer)
    names = dict(zip(("bos_token", "eos_token", "pad_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=raw, **names)


def _corpus() -> list[str]:
    conversations = questions(2000) + (hh_conversations(2000) if hh_file() else [])
    texts = [turn.content for turns in conversations for turn in turns]
    return texts + [wording("system").pairs[0][side]["system"] for side in ("positive", "negative")]


@functools.cache
def encoder(shape: Shape):
    """A function from text to token ids, one BOS in front."""
    if shape.name in ("lab", REAL):
        from transformers import AutoTokenizer

        from benchmarks.shapes import model_folder

        own = AutoTokenizer.from_pretrained(model_folder(shape))
        return lambda text: [own.bos_token_id, *own(text, add_special_tokens=False)["input_ids"]]
    small = tokenizer()
    return lambda text: [0, *(spread(i, len(small), shape.vocabulary) for i in small(text)["input_ids"])]


def spread(token: int, size: int, vocabulary: int) -> int:
    """An id of a small vocabulary as an id of a model's, clear of the special ones; distinct while there is room."""
    first, room = len(SPECIAL), vocabulary - len(SPECIAL)
    if size > vocabulary:
        return first + token % room
    return first + (token - first) % size * room // size
