"""One measurement, in a process of its own: `python -m benchmarks.job '<job as JSON>' <file for the result>`.

The result holds seconds, counts of work, the peak of resident memory, and when the measured part ended: what
comes after (the matrix rate) is no part of the whole process's time.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.clock import Clock, memory
from benchmarks.shapes import Shape, model_folder, shape_of

if TYPE_CHECKING:
    from benchmarks.peers import Task

_BYTES = {"float32": 4, "bfloat16": 2}
LAB_LIMIT = 64  # tokens of an answer at most; the lab's base ends its answers itself


def run(job: dict) -> dict:
    """Do a job; the result without the process's own figures."""
    kinds: dict[str, Callable[[dict, Clock], dict]] = {
        "dpo": _dpo,
        "score": _score,
        "sample": _sample,
        "answers": _answers,
        "sweep": _sweep,
        "pipeline": _pipeline,
        "cell": _cell,
    }
    clock = Clock()
    found = kinds[job["job"]](job, clock)
    figures = {"seconds": clock.seconds, "steps": clock.steps, "peak": memory("VmHWM"), "ended": time.time()}
    extra = found.pop("afterwards", dict)
    half = {"half": True} if _dtype(job) == "bfloat16" or job.get("mixed") else {}
    return figures | found | half | extra()


def _shape(job: dict) -> Shape:
    return shape_of(job["shape"], job.get("vocabulary"))


def _dtype(job: dict) -> str:
    return job.get("dtype", "float32")


def _dpo(job: dict, clock: Clock) -> dict:
    from benchmarks import flops, gemm, ours, workload

    shape, batch, lora, dtype = _shape(job), job["batch"], job.get("lora", False), _dtype(job)
    pairs = workload.trained(workload.pairs_of(shape, job["data"], job["pairs"]), job["data"])
    if job["side"] == "ours":
        model = ours.load(model_folder(shape), shape.name, lora=lora, dtype=dtype)
        loaded = memory("VmRSS")
        found = {"loaded": loaded} | ours.train(model, pairs, clock, batch=batch, lora=lora)
        found["afterwards"] = lambda: {"gemm": gemm.best_rate(shape, dtype=dtype)}
    else:
        from benchmarks import peer_trl

        variants = {"trl": {}, "trl_precomputed": {"precompute": True}, "trl_checkpointed": {"checkpointing": True}}
        options = {"precompute": False, "checkpointing": False} | variants[job["side"]]
        options |= {"dtype": dtype, "mixed": job.get("mixed", False)}
        found = peer_trl.train(model_folder(shape), pairs, clock, batch=batch, lora=lora, **options)
    later = flops.training_work(pairs[batch:])  # both sides take the pairs in this order
    return found | {
        "pairs": len(pairs),
        "dense_tokens": workload.dense_tokens(pairs),
        "later_flops": (flops.FROZEN_TRAINING if lora else flops.TRAINING) * later.forward(shape),
        "parameters": shape.parameters,
    }


def _score(job: dict, clock: Clock) -> dict:
    from benchmarks import flops, gemm, workload

    shape, own, dtype = _shape(job), {}, _dtype(job)
    pairs = workload.pairs_of(shape, job["data"], job["pairs"])
    if job["side"] == "ours":
        from benchmarks import ours

        model = ours.load(model_folder(shape), shape.name, dtype=dtype)
        loaded = memory("VmRSS")
        values, done = ours.score(model, pairs, clock)
        own = {"done_flops": done, "afterwards": lambda: {"gemm": gemm.best_rate(shape, dtype=dtype)}}
    else:
        from benchmarks import peers

        model = peers.load(model_folder(shape), dtype)
        loaded = _held(model)
        values = {"fair": peers.fair, "official": peers.official}[job["side"]](model, pairs, clock)
    return own | {
        "loaded": loaded,
        "touched": True,
        "pairs": len(pairs),
        "bound": flops.scoring_bound(shape, pairs),
        "official_bound": flops.official_bound(shape, pairs, few=flops.OFFICIAL_PAIRS.get(shape.name, len(pairs))),
        "flops": flops.apart(s for pair in pairs for s in flops.scoring_sequences(pair)).forward(shape),
        "values": values[:4],
    }


def _sample(job: dict, clock: Clock) -> dict:
    from benchmarks import peers, workload

    shape = _shape(job)
    sides = workload.contexts_of(shape, job["data"], job["prompts"], random.Random(0))
    contexts = [side[name] for side in sides for name in ("positive", "negative")]
    lengths = workload.imposed_lengths(shape, len(contexts))
    task = peers.Task(contexts, max(lengths or [LAB_LIMIT]), lengths)
    if job["side"] == "ours":
        return {"answers": len(contexts)} | _own_answers(shape, task, clock, _dtype(job))
    if job["side"] == "llama_cpp":
        from benchmarks import peer_llama_cpp

        model = peer_llama_cpp.Model(Path(job["file"]), job["threads"])
        loaded, sampler = memory("VmRSS"), peer_llama_cpp.sample
    else:
        model = peers.load(model_folder(shape), _dtype(job))
        loaded, sampler = _held(model), {"generate": peers.generate, "continuous": peers.continuous}[job["side"]]
    rates = {}
    for rows in job["rows"]:
        clock.seconds.clear()
        rates[str(rows)] = sampler(model, task, clock, rows) / clock.seconds["work"]
    return {"loaded": loaded, "answers": len(contexts), "rates": rates}


def _own_answers(shape: Shape, task: Task, clock: Clock, dtype: str) -> dict:
    """Ours, and the seconds that it takes at least by the rates of this machine."""
    from benchmarks import flops, gemm, ours
    from dlma.sampler.local import TILE

    model = ours.load(model_folder(shape), shape.name, dtype=dtype)
    loaded = memory("VmRSS")
    drawn = ours.sample(model, task.contexts, clock, limit=task.limit, lengths=task.lengths)
    found = {"loaded": loaded, "rates": {"": drawn / clock.seconds["work"]}}
    if task.lengths is None:
        return found

    def bound() -> dict:
        rates = {"rate": gemm.best_rate(shape, dtype=dtype)["rate"], "reading": gemm.reading_rate()}
        needed = flops.sampling_work(task.contexts, task.lengths)
        return rates | {"bound": flops.sampling_seconds(shape, needed, rows=TILE, bytes_each=_BYTES[dtype], **rates)}

    return found | {"afterwards": bound}


def _held(model) -> int:
    """Resident memory with all weights in it: loading alone maps a file, of which a first pass brings in the pages."""
    import torch

    with torch.no_grad():
        model(torch.zeros(1, 1, dtype=torch.long))
    return memory("VmRSS")


def _answers(job: dict, clock: Clock) -> dict:
    """Log-probs of several answers to each prompt, in one tree a prompt."""
    from benchmarks import ours, workload
    from dlma.model.engine import Engine
    from dlma.model.trees import Completion

    shape, per_prompt = _shape(job), job["per_prompt"]
    pairs = workload.pairs_of(shape, job["data"], job["pairs"] * per_prompt // 2)
    model = ours.load(model_folder(shape), shape.name)
    loaded = memory("VmRSS")
    answers = [ids for pair in pairs for ids in (pair.positive_ids, pair.negative_ids)]
    groups = [
        [Completion(pairs[i].plain_context_ids, a) for a in answers[i * per_prompt : (i + 1) * per_prompt]]
        for i in range(job["pairs"])
    ]
    engine = Engine(model)
    engine.score(groups[:1])
    with clock.span("work"):
        engine.score(groups)
    return {"loaded": loaded, "answers": job["pairs"] * per_prompt}


def _sweep(job: dict, clock: Clock) -> dict:
    from benchmarks import sweeps

    sizes = sweeps.SMALL | job.get("sizes", {})
    with tempfile.TemporaryDirectory() as scratch:
        do = {"ours": sweeps.sweep, "singles": sweeps.singles}[job["side"]]
        return do(Path(scratch) / "runs", clock, job["cells"], sizes)


def _pipeline(job: dict, clock: Clock) -> dict:
    from benchmarks import whole

    do = {"ours": whole.ours, "script": whole.theirs}[job["side"]]
    return {"whole": True} | do(job["prompts"], clock, _dtype(job))


def _cell(job: dict, clock: Clock) -> dict:
    from benchmarks import cell

    tree = cell.tree_of(job["commit"])
    if tree is None:
        raise RuntimeError(f"the repository does not have {job['commit']}")
    cell.run(clock, tree)
    return {"whole": True}


def main(argv: list[str]) -> None:
    result = run(json.loads(argv[0]))
    Path(argv[1]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
