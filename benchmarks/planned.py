"""mode=plan against the machine: `python -m benchmarks.planned` counts and measures, and writes docs/plan.md's table.

Each configuration is counted on tensors without content (dlma/cost/memory.py), then run for real through the package's
components, with torch's profiler writing down every block that its allocator hands out and takes back: the most that
was out at once, beside the loaded weights. A minute or two of one core, and some more for the real model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.clock import allocated
from benchmarks.shapes import REAL, ROOT, config_of, real_folder, shape_of, work_folder
from benchmarks.table import between, table

ALLOWED = 0.15
START, END = "<!-- planned:start -->", "<!-- planned:end -->"
CONTEXT, ANSWER = 64, 32  # tokens
RESULTS = ROOT / "benchmarks" / "results" / "planned.json"
COMMON = dict(bos_token_id=0, eos_token_id=1, pad_token_id=2)
GROUPED = dict(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, max_position_embeddings=1024)
MODELS = {  # small, with vocabularies as models in use have them
    "llama": ("llama", GROUPED | dict(intermediate_size=352, num_key_value_heads=4, vocab_size=16000)),
    "qwen3": (
        "qwen3",
        GROUPED
        | dict(intermediate_size=384, num_key_value_heads=2, head_dim=64, vocab_size=48000, tie_word_embeddings=True),
    ),
    "gpt2": ("gpt2", dict(n_embd=128, n_layer=4, n_head=4, n_positions=1024, vocab_size=16000)),
}


@dataclass(frozen=True)
class Case:
    """A configuration: model, what is done, and the values that memory depends on."""

    name: str
    model: str
    work: str = "training"
    dtype: str = "float32"
    optimizer: str = "adamw"
    batch: int = 12
    token_budget: int = 640
    checkpointing: bool = False
    lora: int = 0
    rows: int = 64


CASES = [
    Case("DPO, all weights, AdamW, 3 passes a step", "llama"),
    Case("DPO, all weights, RMSprop, 1 pass a step", "llama", optimizer="rmsprop", batch=4),
    Case("DPO, all weights, checkpointing", "llama", checkpointing=True, batch=16, token_budget=2560),
    Case("DPO, all weights, bfloat16", "llama", dtype="bfloat16", batch=8),
    Case("DPO, all weights", "gpt2"),
    Case("DPO, all weights, 48,000 tokens", "qwen3", batch=8),
    Case("DPO, all weights, bfloat16, 48,000 tokens", "qwen3", dtype="bfloat16", batch=8),
    Case("DPO, LoRA of rank 8", "llama", lora=8, token_budget=1280),
    Case("DPO, LoRA of rank 8, bfloat16", "llama", lora=8, dtype="bfloat16", token_budget=1280),
    Case("DPO, LoRA of rank 8, bfloat16, 48,000 tokens", "qwen3", lora=8, dtype="bfloat16", batch=8),
    Case("scoring", "llama", work="scoring", token_budget=4096),
    Case("scoring, bfloat16, 48,000 tokens", "qwen3", work="scoring", dtype="bfloat16", token_budget=4096),
    Case("sampling, 64 rows", "llama", work="sampling"),
    Case("sampling, 128 rows, bfloat16", "qwen3", work="sampling", dtype="bfloat16", rows=128),
    Case("DPO, LoRA of rank 8", REAL, lora=8, batch=4),
    Case("scoring", REAL, work="scoring", token_budget=1024),
]


def config(name: str):
    """The transformers config of a case's model."""
    from transformers import AutoConfig

    if name in MODELS:
        kind, sizes = MODELS[name]
        return AutoConfig.for_model(kind, **sizes, **COMMON)
    return AutoConfig.from_pretrained(real_folder()) if name == REAL else config_of(shape_of(name))


def folder(name: str) -> Path:
    """The model of a case, with random weights that are made once, or the real one."""
    if name == REAL:
        found = real_folder()
        assert found is not None  # cases without it are left out
        return found
    sizes = hashlib.sha256(repr(MODELS.get(name)).encode()).hexdigest()[:8]
    place = work_folder() / "models" / f"planned-{name}-{sizes}"
    if not (place / "tokenizer_config.json").is_file():
        import torch
        from transformers import AutoModelForCausalLM

        from benchmarks.text import tokenizer

        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config(name)).save_pretrained(place)
        tokenizer().save_pretrained(place)
    return place


def spec(case: Case):
    """The case's model as the package loads it."""
    from dlma.model.load import Lora, ModelSpec

    lora = Lora(case.lora, 16.0, "all-linear") if case.lora else None
    return ModelSpec(case.model, folder(case.model), case.dtype, lora=lora)


def counted(case: Case):
    """The footprint that mode=plan gives."""
    from dlma.cost import memory as memory_model

    made, shape = spec(case), config(case.model)
    if case.work == "sampling":
        lengths = dict(context=CONTEXT, answer=ANSWER)
        draws = dict(temperature=1.0, top_k=0, top_p=1.0)
        return memory_model.sampling(made, shape, rows=case.rows, tile=64, **lengths, **draws)
    if case.work == "scoring":
        size = memory_model.largest_pass(case.token_budget, 3 * CONTEXT + 6 * ANSWER, 6 * ANSWER, 64)
        return memory_model.scoring(made, shape, size)
    size = memory_model.largest_pass(case.token_budget, CONTEXT + 2 * ANSWER, 2 * ANSWER, case.batch)
    return memory_model.training(
        made,
        shape,
        size,
        optimizer=case.optimizer,
        passes=-(-case.batch // size.rows),
        checkpointing=case.checkpointing,
    )


def measured(case: Case) -> int:
    """Bytes of the weights, and of the most that the allocator has handed out beside them while the case runs."""
    model = spec(case).load()
    held = {id(t): t.nbytes for t in (*model.network.parameters(), *model.network.buffers())}
    work: Callable[[Case, object], None] = {"training": _train, "scoring": _score, "sampling": _sample}[case.work]
    return sum(held.values()) + allocated(lambda: work(case, model))


def _pairs(case: Case, count: int) -> list:
    import random

    from dlma.records import Pair

    draw = random.Random(0)
    vocabulary = config(case.model).vocab_size

    def ids(length: int) -> list[int]:
        return [draw.randrange(3, vocabulary) for _ in range(length)]

    rows = []
    for i in range(count):
        sides = [[0, *ids(CONTEXT - 1)] for _ in range(3)]
        rows.append(Pair(str(i), str(i), "q", "w", *sides, ids(ANSWER), ids(ANSWER), False, False, "a", "b"))
    return rows


def _train(case: Case, model) -> None:
    from benchmarks import ours
    from dlma.model.engine import Engine
    from dlma.model.trees import Completion
    from dlma.records import ScoredPair
    from dlma.trainer.runtime import Runtime

    pairs = _pairs(case, 2 * case.batch)  # two steps: the second has the optimizer's state
    groups = [[Completion(p.plain_context_ids, a) for a in (p.positive_ids, p.negative_ids)] for p in pairs]
    scores = Engine(model, token_budget=case.token_budget).score(groups)
    rest = (None, None, None, None, 0.0, "positive")
    rows = [ScoredPair(**vars(p), **dict(zip(_LATER, (*two, *rest), strict=True))) for p, two in zip(pairs, scores)]
    recipe = ours.OPTIMIZER | ours.PLAIN_DPO | {"batch_pairs": case.batch, "optim.optimizer": case.optimizer}
    rule = ours.component("objective", recipe, model)
    rule.engine.token_budget, rule.engine.checkpointing = case.token_budget, case.checkpointing
    with tempfile.TemporaryDirectory() as scratch:
        rule.fit(rows, Runtime(checkpoint_steps=1000), Path(scratch), lambda row: None)


_LATER = (
    "positive_reference", "negative_reference", "positive_under_positive", "positive_under_negative",
    "negative_under_positive", "negative_under_negative", "margin", "chosen",
)  # fmt: skip


def _score(case: Case, model) -> None:
    from benchmarks import ours

    scorer = ours.component("scorer", {}, model)
    scorer.engine.token_budget = case.token_budget
    scorer.score(_pairs(case, 24))


def _sample(case: Case, model) -> None:
    from benchmarks import ours
    from dlma.sampler.local import Request

    sampler = ours.component("sampler", ours.PLAIN_SAMPLING | {"max_new_tokens": ANSWER})
    sampler.rows = case.rows
    contexts = [pair.plain_context_ids for pair in _pairs(case, case.rows)]
    sampler.sample(model, [Request(i, context, ANSWER) for i, context in enumerate(contexts)])


def planned_table(rows: list[dict]) -> str:
    """Counted against measured."""
    cells = []
    for row in rows:
        off = row["counted"] / row["measured"] - 1
        verdict = "held" if abs(off) <= ALLOWED else "**missed**"
        sizes = [f"{row[name] / 1e6:,.1f}" for name in ("counted", "measured")]
        cells.append([row["name"], row["model"], *sizes, f"{100 * off:+.1f} %", verdict])
    return table(["configuration", "model", "counted, MB", "measured, MB", "off", "15 %"], cells)


def main() -> int:
    """Count, measure, write; returns 1 if a configuration is further off than allowed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, nargs="*", help="numbers of configurations; the others stay as measured")
    options = parser.parse_args()
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for number in range(len(CASES)) if options.only is None else options.only:
        case = CASES[number]
        if case.model == REAL and real_folder() is None:
            print(f"left out, the real model: {case.name}: it takes DLMA_BENCH_MODEL", file=sys.stderr)
            continue
        kept[str(number)] = asdict(case) | {"counted": counted(case).total, "measured": measured(case)}
        print(planned_table([kept[str(number)]]).splitlines()[-1], file=sys.stderr, flush=True)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    kept = {number: row for number, row in kept.items() if asdict(CASES[int(number)]).items() <= row.items()}
    rows = [kept[key] for key in sorted(kept, key=int)]
    text = planned_table(rows)
    print(text)
    if len(rows) == len(CASES):
        page = ROOT / "docs" / "plan.md"
        page.write_text(between(page.read_text(encoding="utf-8"), text, START, END), encoding="utf-8")
    return int(any(abs(row["counted"] / row["measured"] - 1) > ALLOWED for row in rows))


if __name__ == "__main__":
    sys.exit(main())
