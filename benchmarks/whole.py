"""The pipeline on the real model, from text to a trained adapter: `run.py` against one script of the peers.

The script does what a careful person would write with `generate`, a plain scorer and TRL: both answers to each prompt,
their six log-probs, DPO on the pairs with the reference passes computed beforehand. Ours is `run.py` until its policy
is there, with R of every token and the checks before training, which it makes besides.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks import peer_trl, peers, workload
from benchmarks.clock import Clock
from benchmarks.ours import ADAPTER, ADAPTER_RATE
from benchmarks.shapes import REAL, model_folder, shape_of
from dlma.data.split import split_of
from dlma.data.text import prompt_id
from dlma.records import Turn
from dlma.store.shards import read_table
from dlma.store.store import Store

BATCH, ROWS = 8, 64
HELD_OUT = 8  # prompts of each other split, which a run wants; they are answered after the policy is there
SHARES = {"data.validation_share": 0.1, "data.test_share": 0.1}


def ours(prompts: int, clock: Clock, dtype: str) -> dict:
    """`run.py` on so many prompts, in the folder where this process is."""
    from dlma.app import main

    shape = shape_of(REAL)
    lines = [json.dumps({"prompt": text}) + "\n" for text in asked(prompts, held_out=HELD_OUT)]
    Path("prompts.jsonl").write_text("".join(lines), encoding="utf-8")
    settings = {
        **{"model": "hf", "model.path": model_folder(shape), "recipe": "small_lora", "recipe.dtype": dtype},
        **{"data": "jsonl", "data.path": "prompts.jsonl", "prompts.format": "template", **SHARES},
        **{"recipe.max_new_tokens": workload.LONGEST_ANSWER},
        **{"recipe.batch_pairs": BATCH, "recipe.optim.warmup": 0, "recipe.lr": ADAPTER_RATE["lr"]},
        **{"recipe.lora.rank": ADAPTER["rank"], "method": "dlma", "logger": "csv", "name": "run"},
    }
    with clock.span("work"), until_trained(), contextlib.suppress(Trained):
        code = main([f"{key}={value}" for key, value in settings.items()])
        raise RuntimeError(f"the run ended with exit code {code}, without a policy")
    (scored,) = Path("store/scored").glob("*/rows.parquet")
    return {"pairs": len(read_table(scored))}


def theirs(prompts: int, clock: Clock, dtype: str) -> dict:
    """The script of the peers."""
    shape = shape_of(REAL)
    with clock.span("work"):
        folder = model_folder(shape)
        sides = [workload.sides_of(shape, text) for text in asked(prompts)]
        model = peers.load(folder, dtype)
        contexts = [each[name] for name in ("positive", "negative") for each in sides]
        drawn = peers.answers(model, peers.Task(contexts, workload.LONGEST_ANSWER, None), ROWS)
        both = zip(sides, drawn[:prompts], drawn[prompts:], strict=True)
        pairs = [workload.as_pair(i, each, *two) for i, (each, *two) in enumerate(both) if two[0] != two[1]]
        peers.fair(model, pairs, Clock())
        del model
    scored = workload.trained(pairs, "answered")
    how = {"batch": BATCH, "precompute": True, "checkpointing": False, "lora": True, "dtype": dtype}
    return peer_trl.train(folder, scored, clock, **how) | {"pairs": len(pairs)}


def asked(prompts: int, held_out: int = 0) -> list[str]:
    """Questions of which so many are for training, by the split of `run.py`, and so many of each other split."""
    shares = {name.rpartition(".")[2]: share for name, share in SHARES.items()}
    left = {"train": prompts, "validation": held_out, "test": held_out}
    found = []
    for text in workload.asked(shape_of(REAL)):
        split = split_of(prompt_id([Turn("user", text)]), **shares)
        if left[split]:
            left[split] -= 1
            found.append(text)
    if any(left.values()):
        raise ValueError(f"too few questions are so short: {left} are missing")
    return found


class Trained(BaseException):
    """The policy is there: what comes after it is not measured."""


@contextlib.contextmanager
def until_trained() -> Iterator[None]:
    """In the block, a stage `policy` that has been made ends the run."""
    make = Store.make

    def ending(store, stage, *args, **named):
        made = make(store, stage, *args, **named)
        if made.name == "policy":
            raise Trained
        return made

    Store.make = ending
    try:
        yield
    finally:
        Store.make = make
