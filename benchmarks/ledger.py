"""What a DPO step costs at sizes that do not run here: `python -m benchmarks.ledger [--check]`, that is `make ledger`.

Steps of four pairs, forward, backward and AdamW, are run on fake tensors: every operation of the second is counted,
and every byte that lives, but nothing is computed. `--check` runs the same steps for real at the sizes that fit. A run
that was stopped goes on where it was, unless the code has changed.

ours          a prefix tree a pair, the head on answer tokens in chunks, stored reference log-probs
TRL           TRL's own chunked head on padded rows, every position, as it does without Triton; a live reference
TRL, Triton   the head on answer tokens only, as TRL does where its Triton kernels run

Measured memory is that of an allocator that hands freed blocks back at once; the usual one keeps some of them.
Neither side uses gradient checkpointing; all layers' activations are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks import workload
from benchmarks.clock import memory
from benchmarks.measure import environment
from benchmarks.shapes import ROOT, Shape, config_of, shape_of, work_folder
from benchmarks.table import RESULTS, between, table
from dlma.cost.meta_model import LiveBytes
from dlma.records import ScoredPair

PAIRS = {"lab": 32}  # of a step; small ones drown in what a process holds anyway
USUAL_PAIRS = 4
WAYS = ("ours", "TRL", "TRL, Triton")
SIZES = ("1B", "7B", "8B")
CHECKED = ("lab", "40M")
DATA = ("one_line", "hh", "long")
START, END = "<!-- ledger:start -->", "<!-- ledger:end -->"
ALLOWED = 0.1
IGNORED = -100
TRL_CHUNK = 32768  # vocabulary of one tile of TRL's head


def operations() -> FlopCounterMode:
    """torch's counter, which does not know the fused attention of the CPU, with that added."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    known = {fused: _attention, backward: _attention_gradient}
    return FlopCounterMode(display=False, custom_mapping=known)


def _attention(query, key, value, *rest, out_shape=None, **named) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_gradient(grad, query, key, value, *rest, out_shape=None, **named) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


class Batch:
    """A step's pairs as tensors: tree rows for ours, padded rows for TRL."""

    def __init__(self, pairs: list[ScoredPair], way: str) -> None:
        self.way = way
        if way == "ours":
            self._trees(pairs)
        else:
            self._padded(pairs)

    def _trees(self, pairs: list[ScoredPair]) -> None:
        from dlma.model import trees

        groups = [
            [trees.Completion(p.plain_context_ids, answer) for answer in (p.positive_ids, p.negative_ids)]
            for p in pairs
        ]
        rows = trees.collate([trees.build_tree(group) for group in groups], 0)
        self.ids, self.position = rows.ids, rows.position
        self.predictor, self.target = rows.predictor, rows.target

    def _padded(self, pairs: list[ScoredPair]) -> None:
        rows = [(p.plain_context_ids, getattr(p, f"{s}_ids")) for s in ("positive", "negative") for p in pairs]
        width = max(len(context) + len(answer) for context, answer in rows)
        self.ids = torch.zeros(len(rows), width, dtype=torch.long)
        self.labels = torch.full((len(rows), width), IGNORED)
        for row, (context, answer) in enumerate(rows):
            self.ids[row, : len(context) + len(answer)] = torch.tensor([*context, *answer])
            self.labels[row, len(context) : len(context) + len(answer)] = torch.tensor(answer)
        self.wanted = (self.labels[:, 1:] != IGNORED).flatten().nonzero().flatten()

    def faked(self, mode: FakeTensorMode) -> Batch:
        """The same batch with tensors that have no content."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, mode.from_tensor(value))
        return self


def token_logp(model, batch: Batch) -> Tensor:
    """The log-prob of every answer token, in the way of the batch."""
    if batch.way == "ours":
        return _ours(model, batch)
    from trl.kernels import ChunkedLogProbFunction

    mask = torch.ones_like(batch.ids)
    hidden = model.base_model(input_ids=batch.ids, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
    states, labels = hidden.flatten(0, 1), batch.labels[:, 1:].flatten().clamp(min=0)
    if batch.way == "TRL, Triton":
        states, labels = states.index_select(0, batch.wanted), labels.index_select(0, batch.wanted)
    outputs = ("log_probs", "entropy", "mean_logits", "is_top1")
    head = model.get_output_embeddings()
    chunk = min(TRL_CHUNK, len(head.weight))  # of a wider tile, a small vocabulary leaves most pages untouched
    return ChunkedLogProbFunction.apply(states, head.weight, None, labels, 1.0, chunk, None, 1.0, outputs)[0]


def _ours(model, batch: Batch) -> Tensor:
    from dlma.functional.logprob import chunked_token_logp

    width = batch.ids.shape[1]
    mask = torch.zeros(len(batch.ids), 1, width, width, dtype=model.dtype)
    states = model.base_model(
        input_ids=batch.ids, attention_mask=mask, position_ids=batch.position, use_cache=False
    ).last_hidden_state
    wanted = states.flatten(0, 1).index_select(0, batch.predictor)
    return chunked_token_logp(wanted, batch.target, model.get_output_embeddings())


class Steps:
    """Steps of one training run; the first makes the optimizer's state, which every later one finds there."""

    def __init__(self, model, reference, batch: Batch) -> None:
        self.model, self.reference, self.batch = model, reference, batch
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, foreach=False)

    def take(self) -> None:
        """The reference's log-probs and one update of the model; the gradients are let go."""
        with torch.no_grad():
            token_logp(self.reference, self.batch)
        token_logp(self.model, self.batch).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def build(shape: Shape, dtype: torch.dtype):
    """The model of a shape; inside a FakeTensorMode it takes no memory."""
    from transformers import LlamaForCausalLM

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return LlamaForCausalLM(config_of(shape)).eval()
    finally:
        torch.set_default_dtype(before)


def pairs_of(shape: Shape, data: str) -> list[ScoredPair]:
    """The pairs of a step."""
    return workload.trained(workload.pairs_of(shape, data, PAIRS.get(shape.name, USUAL_PAIRS)), data)


def counted(shape: Shape, data: str, way: str, dtype: torch.dtype) -> dict:
    """Operations and peak bytes of a step, on fake tensors; `step` is what it adds: activations and gradients."""
    pairs = pairs_of(shape, data)
    batch = Batch(pairs, way)
    flops, live = operations(), LiveBytes()
    with FakeTensorMode() as mode, live:
        model = build(shape, dtype)
        steps = Steps(model, model if way == "ours" else build(shape, dtype), batch.faked(mode))
        steps.take()
        held = live.peak = live.live
        with flops:
            steps.take()
    return {
        "flops": flops.get_total_flops() / len(pairs),
        "peak": live.peak,
        "step": live.peak - held,
        "pairs": len(pairs),
    }


def measured(shape: Shape, data: str, way: str) -> dict:
    """The same step for real, in this process: operations, and how far resident memory rises in it."""
    pairs = pairs_of(shape, data)
    flops, model = operations(), build(shape, torch.float32)
    reference = model if way == "ours" else build(shape, torch.float32)
    steps = Steps(model, reference, Batch(pairs, way))
    steps.take()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    with flops:
        steps.take()
    return {"flops": flops.get_total_flops() / len(pairs), "step": memory("VmHWM") - before}


def in_process(shape: str, data: str, way: str) -> dict:
    """`measured` in a fresh process."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.json"
        command = [sys.executable, "-m", "benchmarks.ledger", "--one", shape, data, way, str(out)]
        subprocess.run(
            command, cwd=ROOT, env=environment({"allocator": "exact"}), check=True, stderr=subprocess.DEVNULL
        )
        return json.loads(out.read_text(encoding="utf-8"))


def usable_data() -> list[str]:
    from benchmarks.text import hh_file

    return [data for data in DATA if data != "hh" or hh_file()]


def count(size: str, data: str, way: str) -> dict:
    """A step of a big shape, bfloat16."""
    return counted(shape_of(size), data, way, torch.bfloat16)


def check(size: str, data: str, way: str) -> dict:
    """Counted against measured at a size that runs here, float32."""
    counts, found = counted(shape_of(size), data, way, torch.float32), in_process(size, data, way)
    off = {key: counts[key] / found[key] - 1 for key in ("flops", "step")}
    return {"counted": counts, "measured": found, "off": off}


PARTS = {"check": (check, CHECKED), "ledger": (count, SIZES)}


def find(part: str, rows: list[dict], keep: Callable[[], None]) -> None:
    """Add what is missing to the rows of a part: every data shape in every way; each row is kept when it is there."""
    do, sizes = PARTS[part]
    there = {(row["shape"], row["data"], row["way"]) for row in rows}
    cells = [(size, data, way) for size in sizes for data in usable_data() for way in WAYS]
    for size, data, way in cells:
        if (size, data) == ("lab", "hh") or (size, data, way) in there:
            continue
        rows.append({"shape": size, "data": data, "way": way, **do(size, data, way)})
        keep()
        print(f"{part} | {size} | {data} | {way}", file=sys.stderr, flush=True)


def code() -> str:
    """A hash of what is counted and how: rows of other code are not kept."""
    files = ["benchmarks/ledger.py", "benchmarks/workload.py", "benchmarks/shapes.py", "dlma/functional/logprob.py"]
    digest = hashlib.sha256()
    for name in [*files, "dlma/model/trees.py", "dlma/cost/meta_model.py"]:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()[:16]


def ledger_table(rows: list[dict]) -> str:
    ours = {(r["shape"], r["data"]): r for r in rows if r["way"] == "ours"}
    cells = [
        [
            r["shape"],
            r["data"],
            r["way"],
            f"{r['flops'] / 1e12:.1f}",
            f"{r['flops'] / ours[r['shape'], r['data']]['flops']:.2f}",
            f"{r['peak'] / 1e9:.1f}",
            f"{r['step'] / 1e9:.1f}",
        ]
        for r in rows
    ]
    header = ["shape", "prompts", "way", "TFLOP per pair", "over ours", "peak, GB", "activations and gradients, GB"]
    return table(header, cells)


def check_table(rows: list[dict]) -> str:
    def word(off: dict) -> str:
        return "held" if max(map(abs, off.values())) <= ALLOWED else "**missed**"

    cells = [
        [
            r["shape"],
            r["data"],
            r["way"],
            f"{100 * r['off']['flops']:+.1f} %",
            f"{r['counted']['step'] / 1e9:.3f}",
            f"{r['measured']['step'] / 1e9:.3f}",
            f"{100 * r['off']['step']:+.1f} %",
            word(r["off"]),
        ]
        for r in rows
    ]
    header = ["shape", "prompts", "way", "FLOPs off", "counted, GB", "measured, GB", "bytes off", "10 %"]
    return table(header, cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare counts with measurement")
    parser.add_argument("--one", nargs=4, metavar=("SHAPE", "DATA", "WAY", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        shape, data, way, out = options.one
        Path(out).write_text(json.dumps(measured(shape_of(shape), data, way)), encoding="utf-8")
        return 0
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    unfinished = work_folder() / "ledger.json"
    found = {"code": code(), "check": [], "ledger": []}
    if unfinished.is_file() and (kept := json.loads(unfinished.read_text(encoding="utf-8")))["code"] == found["code"]:
        found = kept
    for part in ["check"] if options.check else ["ledger", "check"]:
        find(part, found[part], lambda: _write(unfinished, found))
    text = check_table(found["check"])
    if not options.check:
        text = ledger_table(found["ledger"]) + "\n\nCounts against measurement, float32:\n\n" + text
        _write(RESULTS / "ledger.json", found)
        readme = ROOT / "benchmarks" / "README.md"
        readme.write_text(between(readme.read_text(encoding="utf-8"), text, START, END), encoding="utf-8")
        unfinished.unlink()
    print(text)
    return 0


def _write(path: Path, found: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
