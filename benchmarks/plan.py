"""What is measured: the groups of `make bench`, of `make bench-full`, and of the quick one that the tests run."""

from __future__ import annotations

from benchmarks import cell, peer_llama_cpp
from benchmarks.flops import OFFICIAL_PAIRS
from benchmarks.measure import Group
from benchmarks.shapes import REAL, real_folder
from benchmarks.text import hh_file
from dlma.store.machine import instructions

ROUNDS = 3
TRL = {"TRL": "trl", "TRL precomputed": "trl_precomputed"}


def plan(name: str) -> list[Group]:
    """The groups of a plan, the targets' first; raises KeyError for a name that is none."""
    plans = {"bench": bench, "full": full, "inference": inference, "rest": rest, "smoke": smoke}
    of_real = {"real": lambda: [*real_training(), *real_inference(), *real_pipeline()]}
    of_real |= {"real_training": real_training, "real_inference": real_inference, "real_pipeline": real_pipeline}
    return possible(of_real[name]()) if name in of_real else plans[name]()


def bench() -> list[Group]:
    """The lab with its targets, and the real model with its own; the 40 M shape where the real model is not at hand.

    What no target needs stands last, as far as time allows; then so does the 40 M shape.
    """
    lab = [earlier_cell(), sampling("lab", "one_line", 192, (64, 128, 384)), margin_sweep(12, 1)]
    training = [*dpo("40M", "imposed", 16), *dpo("40M", "imposed", 12, allocator="tuned")]
    large = [*training, *scores_of_40m(), sampling("40M", "one_line", 32, (16, 32, 64))]
    real = possible([*real_training(32), *real_inference(), *real_pipeline(1)])
    targets = [*(real or large), *lab, wide_vocabulary("40M", 8)]
    later = [*(large if real else []), *rest()]
    return possible([*targets, *map(extra, later)])


def inference() -> list[Group]:
    """Of the targets' groups those that train nothing."""
    return [
        *scores_of_40m(),
        sampling("lab", "one_line", 192, (64, 128, 384)),
        sampling("40M", "one_line", 32, (16, 32, 64)),
    ]


def scores_of_40m() -> list[Group]:
    return [scoring("40M", "hh" if hh_file() else "imposed", 8), scoring("40M", "long", 12)]


def rest() -> list[Group]:
    """Of `bench` what no target needs."""
    groups = [
        *dpo("lab", "one_line", 256, batch=32),
        scoring("lab", "one_line", 128),
        scoring("lab", "long", 32),
        scoring("40M", "one_line", 8, rounds=1),
        checkpointed("40M", 16),
        more_pairs("lab", (64, 256, 1024)),
        more_answers("40M", (2, 4, 8)),
        margin_sweep(4, 1),
        *dpo("40M", "one_line", 16, rounds=1),
        *dpo("40M", "hh", 8, rounds=1),
        *dpo("40M", "long", 8, rounds=1),
        sampling("40M", "long", 16, (16, 32), rounds=1),
        continuous("40M", "one_line", 32, 64),
        continuous("lab", "one_line", 192, 128),
    ]
    return possible(groups)


def full() -> list[Group]:
    """All of `bench` with every round, and the 135 M shape."""
    more = [
        *dpo("135M", "imposed", 8),
        *dpo("135M", "imposed", 8, allocator="tuned"),
        *dpo("135M", "one_line", 8),
        *dpo("135M", "hh", 8),
        *dpo("135M", "long", 8),
        *[scoring("135M", data, 6) for data in ("one_line", "hh", "long")],
        sampling("135M", "one_line", 24, (16, 48)),
        sampling("40M", "hh", 24, (16, 48)),
        *dpo("lab", "long", 64, batch=32),
        more_pairs("40M", (8, 32, 128)),
        wide_vocabulary("135M", 4),
    ]
    groups = [Group(g.name, g.sides, ROUNDS) for g in bench()]
    return possible([*groups, *more])


def smoke() -> list[Group]:
    """Every kind of job once, on a tiny shape."""
    sweep = {"data.train": 32, "data.test": 8, "recipe.max_new_tokens": 16}
    return [
        *dpo("tiny", "imposed", 8, rounds=1),
        *dpo("tiny", "imposed", 8, rounds=1, allocator="tuned"),
        scoring("tiny", "long", 4, rounds=1),
        sampling("tiny", "one_line", 8, (8,), rounds=1),
        margin_sweep(2, 1, sizes=sweep),
        continuous("tiny", "one_line", 8, 8),
        wide_vocabulary("tiny", 4),
        more_answers("tiny", (2, 4)),
    ]


def real_training(pairs: int = 64) -> list[Group]:
    """DPO of the real model on real pairs, with an adapter and with all weights, by two threads."""
    return [group for lora in (True, False) for group in real_dpo(pairs, lora=lora)]


def real_pipeline(rounds: int = ROUNDS) -> list[Group]:
    """200 prompts from text to a trained adapter: it takes minutes."""
    job = {"job": "pipeline", "shape": REAL, "data": "answered", "prompts": 200, "dtype": real_dtype()}
    sides = {"ours": job | {"side": "ours"}, "one script": job | {"side": "script"}}
    return [two_threads(Group("pipeline, real model, 200 prompts", sides, rounds), allocator="tuned")]


def real_dtype() -> str:
    """The faster type of products where no weight that is trained has it: adapters, scores and answers."""
    wide = {"avx512_bf16", "amx_bf16"} & set(instructions().split())
    return "bfloat16" if wide else "float32"


def real_inference() -> list[Group]:
    """Its scores and answers, with freed memory kept on all sides, as a run keeps it."""
    batches = (16, 32, 64)
    answers = sampling(REAL, "answered", 32, batches)
    (generate,) = (job for side, job in answers.sides.items() if side == "generate")
    for path in peer_llama_cpp.files():
        answers.sides[f"llama.cpp, {path.stem}"] = generate | {"side": "llama_cpp", "file": str(path)}
    kinds = (scoring(REAL, "answered", 64), answers)
    return [two_threads(group, allocator="tuned", dtype=real_dtype()) for group in kinds]


def two_threads(group: Group, **job: str) -> Group:
    return Group(group.name, {side: one | {"threads": 2} | job for side, one in group.sides.items()}, group.rounds)


def possible(groups: list[Group]) -> list[Group]:
    """The groups whose data and model are at hand."""
    absent = set() if hh_file() else {"hh", "answered"}
    absent |= set() if real_folder() else {REAL}
    return [g for g in groups if not any({job.get("data"), job.get("shape")} & absent for job in g.sides.values())]


def real_dpo(pairs: int, *, lora: bool) -> list[Group]:
    """As `dpo`, on the real model's weights and HH's own pairs."""
    (group,) = dpo(REAL, "answered", pairs, batch=8)
    own = {"lora": lora, "dtype": real_dtype() if lora else "float32"}
    sides = {side: job | own for side, job in group.sides.items()}
    if not lora and real_dtype() == "bfloat16":
        sides = {side: job | {"mixed": job["side"] != "ours"} for side, job in sides.items()}
    return [two_threads(Group(name_of_real(lora), sides, ROUNDS))]


def name_of_real(lora: bool) -> str:
    return f"DPO, real model, {'LoRA' if lora else 'all weights'}, two threads"


def extra(group: Group) -> Group:
    return Group(group.name, group.sides, group.rounds, extra=True)


def dpo(
    shape: str, data: str, pairs: int, *, batch: int = 4, rounds: int = ROUNDS, allocator: str = "default"
) -> list[Group]:
    """DPO: ours against TRL as it comes and with the reference log-probs computed beforehand."""
    job = {"job": "dpo", "shape": shape, "data": data, "pairs": pairs, "batch": batch, "allocator": allocator}
    sides = {label: job | {"side": side} for label, side in ({"ours": "ours"} | TRL).items()}
    return [Group(f"DPO, {shape}, {data}, {allocator} allocator", sides, rounds)]


def checkpointed(shape: str, pairs: int) -> Group:
    """TRL with gradient checkpointing, which is its own default: less memory, more time."""
    job = {"job": "dpo", "shape": shape, "data": "imposed", "pairs": pairs, "batch": 4, "side": "trl_checkpointed"}
    return Group(f"DPO, {shape}, imposed, gradient checkpointing", {"TRL checkpointed": job}, 1)


def scoring(shape: str, data: str, pairs: int, *, rounds: int = ROUNDS) -> Group:
    """Margin and reference of pairs: ours against the two plain scorers.

    The official way has no cost that many pairs share, and takes long: it is given the first few pairs.
    """
    job = {"job": "score", "shape": shape, "data": data}
    few = min(pairs, OFFICIAL_PAIRS.get(shape, pairs))
    sides = {side: job | {"side": side, "pairs": pairs} for side in ("ours", "fair")}
    return Group(f"scoring, {shape}, {data}", sides | {"official": job | {"side": "official", "pairs": few}}, rounds)


def sampling(shape: str, data: str, prompts: int, sizes: tuple, *, rounds: int = ROUNDS) -> Group:
    """Answers under both prompt sides: ours against `generate` at the best of several batch sizes."""
    job = {"job": "sample", "shape": shape, "data": data, "prompts": prompts}
    sides = {"ours": job | {"side": "ours"}, "generate": job | {"side": "generate", "rows": sizes}}
    return Group(f"sampling, {shape}, {data}", sides, rounds)


def continuous(shape: str, data: str, prompts: int, rows: int) -> Group:
    """transformers' continuous batching on the same work."""
    job = {"job": "sample", "shape": shape, "data": data, "prompts": prompts, "side": "continuous", "rows": [rows]}
    return Group(f"continuous batching, {shape}, {data}", {"continuous": job}, 1)


def margin_sweep(cells: int, rounds: int, *, sizes: dict | None = None) -> Group:
    """A margin sweep over one store against as many single runs, each with a store of its own."""
    job = {"job": "sweep", "cells": cells, "sizes": sizes or {}}
    sides = {"one sweep": job | {"side": "ours"}, "single runs": job | {"side": "singles"}}
    return Group(f"margin sweep, lab, {cells} cells", sides, rounds)


def earlier_cell() -> Group:
    """A run on the lab by this code and by an earlier commit's, on one core."""
    job = {"job": "cell"}
    sides = {"now": job | {"commit": None}, cell.EARLIER: job | {"commit": cell.EARLIER}}
    return Group("one cell, lab", sides, ROUNDS)


def wide_vocabulary(shape: str, pairs: int) -> Group:
    """Ours with the shape's vocabulary and with four times as much."""
    from benchmarks.shapes import shape_of

    base = shape_of(shape).vocabulary
    job = {"job": "dpo", "shape": shape, "data": "imposed", "pairs": pairs, "batch": 4, "side": "ours"}
    sides = {f"vocabulary {times}x": job | {"vocabulary": times * base} for times in (1, 4)}
    return Group(f"growth, {shape}, vocabulary", sides, 1)


def more_pairs(shape: str, counts: tuple) -> Group:
    """Ours with more pairs: time and memory."""
    job = {"job": "dpo", "shape": shape, "data": "imposed", "batch": 8, "side": "ours"}
    data = {"data": "one_line"} if shape == "lab" else {}
    return Group(f"growth, {shape}, pairs", {f"{n} pairs": job | data | {"pairs": n} for n in counts}, 1)


def more_answers(shape: str, counts: tuple) -> Group:
    """Log-probs of more answers to each prompt."""
    job = {"job": "answers", "shape": shape, "data": "imposed", "pairs": 8}
    return Group(f"growth, {shape}, answers per prompt", {f"{n} answers": job | {"per_prompt": n} for n in counts}, 1)
