"""What explains the missed targets: `python -m benchmarks.profile [sampling] [scoring] [vocabulary] [real]`.

sampling     CPU seconds of the lab model's answers by what takes them, beside `generate`
scoring      what a process holds before it scores anything, and the bytes of the pass itself, counted
vocabulary   bytes of a training step by part at two vocabularies, counted
real         seconds of the real model's scores, answers and steps by what takes them, two threads; where it is at hand
The counts are those of mode=plan (dlma/cost/memory.py), on tensors without content. The result is Markdown.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks import gemm, job, measure, ours, peers, workload
from benchmarks.clock import Clock
from benchmarks.plan import real_dtype
from benchmarks.shapes import REAL, ROOT, config_of, model_folder, real_folder, shape_of
from benchmarks.table import table
from benchmarks.text import hh_file

ROUNDS = 3
PROMPTS, BATCH = 192, 384  # as in the plan; the best batch size of `generate`

PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise")


def sampling() -> str:
    """Where the lab model's sampling spends its time, and what `generate` takes for the same contexts."""
    import torch

    torch.set_num_threads(1)
    shape = shape_of("lab")
    sides = workload.contexts_of(shape, "one_line", PROMPTS, random.Random(0))
    contexts = [side[name] for side in sides for name in ("positive", "negative")]
    model, plain = ours.load(model_folder(shape), shape.name), peers.load(model_folder(shape))
    rounds = []
    for _ in range(ROUNDS):
        spent, drawn = _sampled(model, contexts)
        spent["generate"] = _seconds(lambda: peers.generate(plain, peers.Task(contexts, 64, None), Clock(), BATCH))
        rounds.append(spent)
    best = min(rounds, key=lambda spent: spent["all"])
    best["generate"] = min(spent["generate"] for spent in rounds)
    products, attention = _parts(model)
    steps = best["step"] / best["steps"]
    rows = [
        ["all", best["all"], f"{drawn} tokens"],
        ["reading the contexts", best["read"], f"{best['passes']:.0f} passes of 256 tokens"],
        ["decoding", best["step"], f"{best['steps']:.0f} steps of 64 rows, {1000 * steps:.1f} ms each"],
        ["- matrix products", products * best["steps"], f"{1000 * products:.1f} ms a step"],
        ["- attention", attention * best["steps"], f"{1000 * attention:.1f} ms a step"],
        ["- all else of the model", best["step"] - (products + attention) * best["steps"], "norms, rotations, calls"],
        ["drawing and bookkeeping", best["all"] - best["read"] - best["step"], ""],
        ["`generate`", best["generate"], f"batches of {BATCH}; {best['generate'] / best['all']:.2f} times ours"],
    ]
    return table(["sampling, lab", "CPU seconds", ""], [[name, f"{value:.2f}", note] for name, value, note in rows])


def _sampled(model, contexts: list[list[int]]) -> tuple[dict[str, float], int]:
    """CPU seconds of one round, apart for reading and decoding, with how many passes and steps they took."""
    from dlma.functional.noise import row_key
    from dlma.sampler.decode import Reader, Tile
    from dlma.sampler.local import LocalSampler, Request

    sampler = LocalSampler(**ours.PLAIN_SAMPLING, max_new_tokens=job.LAB_LIMIT)
    requests = [Request(row_key(0, str(i), "plain", 0), ids) for i, ids in enumerate(contexts)]
    answers: list = []
    with _timed(Reader, "read") as read, _timed(Reader, "_pass") as passes, _timed(Tile, "step") as step:
        spent = _seconds(lambda: answers.extend(sampler.sample(model, requests)))
    parts = {"all": spent, "read": sum(read), "step": sum(step), "passes": len(passes), "steps": len(step)}
    return parts, sum(len(answer.ids) for answer in answers)


def _parts(model) -> tuple[float, float]:
    """Seconds of a step's matrix products on their own, and of its attention: what a step takes less without."""
    import torch
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from dlma.sampler import kv_cache
    from dlma.sampler.decode import Reader, Tile
    from dlma.sampler.local import TILE

    context = list(range(3, 24))
    layers = [module for module in model.network.modules() if isinstance(module, torch.nn.Linear)]
    inputs = [torch.randn(TILE, layer.in_features) for layer in layers]
    with torch.no_grad(), kv_cache.row_attention(model):
        reader, tile = Reader(model, 128, "full"), Tile(model, TILE, 128, "full")
        reader.read([context])
        for row in range(TILE):
            tile.enter(row, context, reader.slots, 0)
        whole = _least(tile.step)
        heads = model.causal.config.num_attention_heads
        nothing = torch.zeros(TILE, 1, heads, model.causal.config.hidden_size // heads)
        ALL_ATTENTION_FUNCTIONS.register(kv_cache._NAME, lambda *args, **named: (nothing, None))
        without = _least(tile.step)
        ALL_ATTENTION_FUNCTIONS.register(kv_cache._NAME, kv_cache.tile_attention)
        products = _least(lambda: [layer(part) for layer, part in zip(layers, inputs, strict=True)])
    return products, whole - without


def _least(do: Callable[[], object], times: int = 50) -> float:
    return min(_seconds(do) for _ in range(times))


def _seconds(do: Callable[[], object]) -> float:
    started = time.process_time()
    do()
    return time.process_time() - started


@contextmanager
def _timed(owner: type, name: str) -> Iterator[list[float]]:
    """CPU seconds of each call of a method in the block."""
    found: list[float] = []
    method = getattr(owner, name)

    def timed(*args, **named):
        started = time.process_time()
        try:
            return method(*args, **named)
        finally:
            found.append(time.process_time() - started)

    setattr(owner, name, timed)
    try:
        yield found
    finally:
        setattr(owner, name, method)


def scoring() -> str:
    """The 40 M shape: what is there before the first pass, on either side, and what the passes add."""
    from dlma.cost.memory import Pass
    from dlma.cost.memory import scoring as counted

    shape = shape_of("40M")
    weights = 4 * shape.parameters
    rows = [[f"process of {side} with its imports", _megabytes(_imports(side)), ""] for side in ("ours", "theirs")]
    rows.append(["weights, float32", _megabytes(weights), ""])
    for budget in (8192, 2048):
        size = Pass(budget // 1024, 1024, 672)
        found = counted(_spec(shape), config_of(shape), size)
        parts = f"activations {_megabytes(found.activations)}, head {_megabytes(found.head)}"
        note = f"{parts}; {size.rows} rows of 1024 tokens, 672 of them answers'"
        rows.append([f"a pass of {budget} tokens, ours", _megabytes(found.total - weights), note])
    return table(["scoring, 40M", "MB", ""], rows)


def _imports(side: str) -> int:
    """Resident memory of a fresh process that has imported what a side needs, and loaded nothing."""
    wanted = {
        "ours": "import hydra, dlma.app, dlma.model.language, dlma.scorer.self_reward",
        "theirs": "from transformers import AutoModelForCausalLM, LlamaForCausalLM",
    }[side]
    code = f"{wanted}\nfrom benchmarks.clock import memory\nprint(memory('VmRSS'))"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=measure.environment({}), check=True, capture_output=True, text=True
    )
    return int(out.stdout.split()[-1])


def vocabulary() -> str:
    """A training step of four pairs in two passes at 32,000 and 128,000 tokens; what depends on them, and how often."""
    from dlma.cost.memory import Pass, training

    size, rows, found = Pass(2, 768, 384), [], {}
    for times in (1, 4):
        shape = shape_of("40M", times * shape_of("40M").vocabulary)
        found[times] = training(_spec(shape), config_of(shape), size, optimizer="adamw", passes=2, checkpointing=False)
    for name in ("weights", "optimizer", "gradients", "activations", "head", "total"):
        rows.append([name, *(_megabytes(getattr(found[times], name)) for times in (1, 4))])
    beyond = [one.total - one.weights - one.optimizer for one in found.values()]
    rows.append(["beyond weights and optimizer", *map(_megabytes, beyond)])
    matrix = 4 * shape_of("40M").vocabulary * shape_of("40M").hidden
    grown, copies = beyond[1] / beyond[0], (beyond[1] - beyond[0]) / (3 * matrix)
    note = f"Beyond weights and optimizer it grows {grown:.2f} times: by {copies:.1f} matrices of the head's size."
    return table(["training, 40M, MB", "vocabulary 1x", "vocabulary 4x"], rows) + "\n\n" + note


def real() -> str:
    """Where the real model's seconds go; nothing where it is not at hand."""
    if real_folder() is None or hh_file() is None:
        return "real: it takes DLMA_BENCH_MODEL and HH's pairs (DLMA_HH_FILE)"
    import torch

    from dlma.sampler.local import TILE
    from dlma.scorer.self_reward import SelfReward, sequences

    torch.set_num_threads(2)
    shape = shape_of(REAL)
    pairs = workload.pairs_of(shape, "answered", 64)
    dtype = real_dtype()
    scorer = SelfReward(ours.load(model_folder(shape), REAL, dtype=dtype))
    check = _wall(lambda: scorer.engine.plan([sequences(pair) for pair in pairs]))
    scored = _shares(lambda: scorer.score(pairs))
    needed = scorer.engine.meter.flops
    sides = workload.contexts_of(shape, "answered", 32, random.Random(0))
    contexts = [side[name] for side in sides for name in ("positive", "negative")]
    lengths = workload.imposed_lengths(shape, len(contexts)) or []
    plain, model = (ours.load(model_folder(shape), REAL, lora=lora, dtype=dtype) for lora in (False, True))
    drawn = _shares(lambda: ours.sample(plain, contexts, Clock(), limit=max(lengths), lengths=lengths))
    narrow = [
        gemm.rate(*sizes, seconds=0.15, dtype=dtype) / 1e9 for sizes in gemm.products(shape, TILE) if sizes[0] == TILE
    ]
    rows_of = workload.trained(pairs[:16], "answered")
    step = _shares(lambda: ours.train(model, rows_of, Clock(), batch=8, lora=True))
    rows = [
        ["the check of prefix sharing and the first touch of the weights", f"{check:.1f}", "once in a process"],
        *_lines(f"{len(pairs)} pairs scored", scored, f"{needed / 1e9 / scored['products']:.0f} GFLOP/s"),
        *_lines(
            f"{len(contexts)} answers drawn",
            drawn,
            f"of {TILE} rows alone {min(narrow):.0f} to {max(narrow):.0f} GFLOP/s",
        ),
        *_lines("two steps of eight pairs, an adapter, with the reference pass", step, ""),
    ]
    return table([f"the real model, {dtype}", "seconds", ""], rows)


def _lines(name: str, spent: dict[str, float], rate: str) -> list[list[str]]:
    notes = {"products": rate, "attention": "", "all else": "norms, rotations, softmax, calls"}
    return [
        [name, f"{sum(spent.values()):.1f}", ""],
        *([f"- {part}", f"{spent[part]:.1f}", note] for part, note in notes.items()),
    ]


def _shares(do: Callable[[], object]) -> dict[str, float]:
    """Seconds by what takes them: of matrix products, of attention, of all else of the process."""
    from torch.profiler import ProfilerActivity, profile

    started = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        do()
        wall = time.perf_counter() - started
    found = dict.fromkeys(("products", "attention"), 0.0)
    for event in seen.key_averages():
        kind = "attention" if "scaled_dot_product" in event.key else "products"
        if kind == "attention" or event.key in PRODUCTS:
            found[kind] += event.self_cpu_time_total / 1e6
    return found | {"all else": wall - sum(found.values())}


def _wall(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def _spec(shape):
    from dlma.model.load import ModelSpec

    return ModelSpec(shape.name, ROOT, "float32")


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.0f}"


def main(argv: list[str]) -> int:
    """Print the parts that were asked for, or all."""
    parts: dict[str, Callable[[], str]] = {"sampling": sampling, "scoring": scoring}
    parts |= {"vocabulary": vocabulary, "real": real}
    for name in argv or parts:
        if name not in parts:
            print(f"{name}: none of {', '.join(parts)}", file=sys.stderr)
            return 2
        print(parts[name](), end="\n\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
