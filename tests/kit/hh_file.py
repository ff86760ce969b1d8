"""A small file of human pairs in Anthropic's format, and a small model whose tokenizer knows their words."""

import gzip
import json

from small_models import byte_level_tokenizer, save_small

QUESTIONS = [f"how do i make a {thing} with {n} care today?" for thing in ("cake", "boat", "lamp") for n in range(20)]
ANSWERS = ["with care", "no harm", "a cake and a boat", "today", "how do i"]
OTHERS = ["USER: ASSISTANT: (law-abiding, ethical response)", "Options: (A) (B) The answer is:"]


def write_model(folder, **options):
    """A model with room for the questions under every wording; returns its folder."""
    tokenizer = byte_level_tokenizer([*QUESTIONS, *ANSWERS, *OTHERS], 400)
    return save_small(folder, tokenizer=tokenizer, context=4096, **options)


def write_pairs(path):
    """A pair for most questions; returns the path."""
    with gzip.open(path, "wt") as out:
        for i, question in enumerate(QUESTIONS):
            chosen, rejected = ANSWERS[i % 5], ANSWERS[(i * 3 + 1) % 5]
            if chosen != rejected:
                pair = {"chosen": chosen, "rejected": rejected}
                row = {name: f"\n\nHuman: {question}\n\nAssistant: {text}" for name, text in pair.items()}
                out.write(json.dumps(row) + "\n")
    return path
