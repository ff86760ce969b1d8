"""A GPU's figures: `python -m benchmarks.gpu`, that is `make bench-gpu`. Five minutes at most, nothing is fetched.

Llama shapes of 1B and 8B parameters, bfloat16, their random weights made on the device: DPO with an adapter and with
all weights, scoring and sampling, ours beside the peers; and three ways of attention (attention.py). What does not fit
says so, and what no time is left for is named. `--toy` walks through all of it on the CPU with a model of a few
thousand weights, which shows that the script works and nothing else: it writes no results.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import yaml

from benchmarks import attention, flops, ours, peer_trl, peers, workload
from benchmarks.clock import Clock
from benchmarks.ledger import build
from benchmarks.measure import machine
from benchmarks.shapes import ROOT, Shape, shape_of
from benchmarks.table import RESULTS, between, table
from benchmarks.text import tokenizer
from dlma.model.language import LanguageModel, with_lora
from dlma.model.load import Lora
from dlma.model.meter import matmul_peak

SECONDS = 300.0
START, END = "<!-- gpu:start -->", "<!-- gpu:end -->"
BATCH = 4  # pairs of a step
KINDS = {"adapter": True, "all weights": False}


@dataclass(frozen=True)
class Size:
    """What is done of each work: pairs that are trained on and scored, prompts that are answered under both sides."""

    shapes: tuple[str, ...]
    trained: int
    scored: int
    prompts: int


FULL, TOY = Size(("1B", "8B"), 24, 16, 64), Size(("tiny",), 8, 4, 4)


@dataclass
class Figures:
    """Of one measurement: what was done, or why not.

    tokens: dense ones, or those drawn; operations: those that are needed at least; peak: bytes on the GPU
    """

    shape: str
    work: str
    side: str
    tokens: float = 0.0
    seconds: float = 0.0
    operations: float = 0.0
    peak: int = 0
    failed: str = ""


Done = tuple[float, float, float]  # tokens, seconds, operations


class OutOfTime(BaseException):
    """The five minutes are over."""


class Bench:
    """One device, the size of the work, and what was found so far."""

    def __init__(self, device: torch.device, size: Size) -> None:
        self.device, self.size = device, size
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.accelerator = "gpu" if device.type == "cuda" else "cpu"
        self.found: list[Figures] = []
        self.attention: dict[str, dict[str, float | str]] = {}

    def jobs(self) -> Iterator[tuple[str, str, str, Callable[[Shape], Done]]]:
        """Shape, work, side, and what measures it; the larger shape comes last."""
        for shape in self.size.shapes:
            for kind, lora in KINDS.items():
                yield shape, f"DPO, {kind}", "ours", lambda shape, lora=lora: self._dpo(shape, lora, self._train_ours)
                if importlib.util.find_spec("trl"):
                    yield shape, f"DPO, {kind}", "TRL", lambda shape, lora=lora: self._dpo(shape, lora, self._train_trl)
            yield shape, "scoring", "ours", lambda shape: self._scoring(shape, self._score_ours)
            yield shape, "scoring", "fair plain scorer", lambda shape: self._scoring(shape, peers.fair)
            yield shape, "sampling", "ours", lambda shape: self._sampling(shape, self._sample_ours)
            yield shape, "sampling", "generate", lambda shape: self._sampling(shape, self._sample_peer)

    def carry_out(self) -> None:
        """Measure everything, in turn; one that fails leaves its reason and lets the others go on."""
        for shape, work, side, measure in self.jobs():
            self._release()
            try:
                done = measure(shape_of(shape))
                peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else 0
                figures = Figures(shape, work, side, *done, peak)
            except torch.OutOfMemoryError:
                figures = Figures(shape, work, side, failed="does not fit")
            except Exception as reason:  # of a peer, or of a library on a device nobody has tried: it is shown
                line = (str(reason).strip().splitlines() or [""])[0]
                figures = Figures(shape, work, side, failed=f"{type(reason).__name__}: {line[:100]}")
            self.found.append(figures)
            print(" | ".join(cells(figures, None)), file=sys.stderr, flush=True)
        for shape in self.size.shapes:
            self._release()
            pairs = workload.pairs_of(shape_of(shape), "imposed", BATCH)
            layer = attention.Layer(shape_of(shape), pairs, self.device, self.dtype)
            self.attention[shape] = attention.milliseconds(layer)

    def _release(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _network(self, shape: Shape):
        with self.device:
            return build(shape, self.dtype)

    def _model(self, shape: Shape, lora: bool = False) -> LanguageModel:
        network = self._network(shape)
        return LanguageModel(with_lora(network, Lora(**ours.ADAPTER)) if lora else network, tokenizer(), shape.name)

    def _dpo(self, shape: Shape, lora: bool, train: Callable[[Shape, list, Clock, bool], None]) -> Done:
        """Steps after the first; both sides take the pairs in this order."""
        pairs = workload.trained(workload.pairs_of(shape, "imposed", self.size.trained), "imposed")
        clock = Clock()
        train(shape, pairs, clock, lora)
        later = pairs[BATCH:]
        factor = flops.FROZEN_TRAINING if lora else flops.TRAINING
        operations = factor * flops.training_work(later).forward(shape)
        return workload.dense_tokens(later), sum(clock.steps[1:]), operations

    def _train_ours(self, shape: Shape, pairs: list, clock: Clock, lora: bool) -> None:
        model = self._model(shape, lora)
        ours.train(model, pairs, clock, batch=BATCH, lora=lora, accelerator=self.accelerator, saved=False)

    def _train_trl(self, shape: Shape, pairs: list, clock: Clock, lora: bool) -> None:
        settings = {"precompute": True, "checkpointing": False, "lora": lora, "gpu": self.device.type == "cuda"}
        peer_trl.fit(self._network(shape), tokenizer(), pairs, clock, batch=BATCH, **settings)

    def _scoring(self, shape: Shape, score: Callable[[object, list, Clock], object]) -> Done:
        """A second time: what is chosen and compiled at the first is no part of it."""
        pairs = workload.pairs_of(shape, "imposed", self.size.scored)
        model, clock = self._model(shape), Clock()
        own = model if score == self._score_ours else model.network
        score(own, pairs[:BATCH], Clock())
        score(own, pairs, clock)
        sequences = [flops.scoring_sequences(pair) for pair in pairs]
        operations = sum(flops.shared(each).forward(shape) for each in sequences)
        tokens = sum(len(context) + len(answer) for each in sequences for context, answer in each)
        return tokens, clock.seconds["work"], operations

    def _score_ours(self, model, pairs: list, clock: Clock) -> None:
        ours.score(model, pairs, clock)

    def _sampling(self, shape: Shape, sample: Callable[[LanguageModel, peers.Task, Clock], int]) -> Done:
        """Answers of imposed lengths under both prompt sides."""
        sides = workload.contexts_of(shape, "imposed", self.size.prompts, random.Random(0))
        contexts = [side[name] for side in sides for name in ("positive", "negative")]
        lengths = workload.imposed_lengths(shape, len(contexts))
        assert lengths is not None  # only the lab ends its answers itself
        clock = Clock()
        drawn = sample(self._model(shape), peers.Task(contexts, max(lengths), lengths), clock)
        done = flops.apart((context, range(length)) for context, length in zip(contexts, lengths, strict=True))
        return drawn, clock.seconds["work"], done.forward(shape)

    def _sample_ours(self, model: LanguageModel, task: peers.Task, clock: Clock) -> int:
        return ours.sample(model, task.contexts, clock, limit=task.limit, lengths=task.lengths)

    def _sample_peer(self, model: LanguageModel, task: peers.Task, clock: Clock) -> int:
        return peers.generate(model.network, task, clock, 64)


_OTHER_FORMS = {"pcie", "nvl", "laptop", "d", "super"}


def rate_of(device: torch.device, name: str) -> tuple[float, str]:
    """Peak operations per second, and whose word it is: a datasheet's for bfloat16, else the best product here."""
    nodes = yaml.safe_load((ROOT / "conf" / "mode" / "plan.yaml").read_text(encoding="utf-8"))["mode"]["devices"]
    words = re.split(r"[ -]", name.lower())
    usual = not _OTHER_FORMS & {*words}  # of the same chip, with other rates
    known = usual and [node for key, node in nodes.items() if {key.split("_")[0], key.removeprefix("rtx_")} & {*words}]
    if known:
        return known[0]["bfloat16"] * 1e12, known[0]["source"]
    rows = 4096 if device.type == "cuda" else 64
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return matmul_peak(rows, rows, rows, dtype, device), "best matrix product measured here"


def cells(one: Figures, rate: float | None) -> list[str]:
    """A row of the table; rate: of the device, for the share of it that was used."""
    if one.failed:
        return [one.shape, one.work, one.side, one.failed, "", ""]
    share = f"{one.operations / one.seconds / rate:.1%}" if rate else ""
    peak = f"{one.peak / 1e9:.1f}" if one.peak else ""
    return [one.shape, one.work, one.side, f"{one.tokens / one.seconds:,.0f}", share, peak]


def tables(bench: Bench, rate: float, source: str, left: Sequence[str]) -> str:
    """What was found, as Markdown."""
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else "CPU, toy size: these figures mean nothing"
    parts = [
        f"{name}; torch {torch.__version__}; {str(bench.dtype)[6:]}; peak rate {rate / 1e12:.3g} TFLOP/s ({source})"
    ]
    head = ["shape", "work", "side", "tokens/s", "model FLOP utilisation", "peak, GB"]
    parts.append(table(head, [cells(one, rate) for one in bench.found]))
    rows = [
        [shape, way, f"{found:.3f}" if isinstance(found, float) else found]
        for shape, ways in bench.attention.items()
        for way, found in ways.items()
    ]
    passes = "forward and backward" if bench.device.type == "cuda" else "forward"
    parts.append(table(["shape", "attention", f"ms, one layer, {BATCH} pairs, {passes}"], rows))
    if left:
        parts.append(f"No time was left for: {'; '.join(left)}.")
    return "\n\n".join(parts)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """The block ends with OutOfTime after so many seconds."""

    def over(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measured(bench: Bench, seconds: float) -> list[str]:
    """Carry out a bench within so many seconds; what no time was left for."""
    try:
        with at_most(seconds):
            bench.carry_out()
    except OutOfTime:
        pass  # what is missing is named
    done = len(bench.found)
    left = [", ".join(job[:3]) for job in list(bench.jobs())[done:]]
    return left + [f"{shape}, attention" for shape in bench.size.shapes if shape not in bench.attention]


def main(argv: list[str] | None = None) -> int:
    """Measure, print, keep; returns 1 when a measurement failed for another reason than room, 2 without a GPU."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="on the CPU with a tiny model: shows that the script works")
    options = parser.parse_args(argv)
    if not options.toy and not torch.cuda.is_available():
        print("benchmarks.gpu: no GPU that torch can use is here; --toy walks through it on the CPU", file=sys.stderr)
        return 2
    device = torch.device("cpu" if options.toy else "cuda")
    bench = Bench(device, TOY if options.toy else FULL)
    rate, source = rate_of(device, "" if options.toy else torch.cuda.get_device_name())
    left = measured(bench, SECONDS - (time.monotonic() - started))
    text = tables(bench, rate, source, left)
    print(text)
    if not options.toy:
        keep(bench, text)
    return int(any(one.failed and one.failed != "does not fit" for one in bench.found))


def keep(bench: Bench, text: str) -> None:
    """Write the results, and their tables into the README."""
    found = {"machine": machine() | {"gpu": torch.cuda.get_device_name()}, "attention": bench.attention}
    found["figures"] = [asdict(one) for one in bench.found]
    (RESULTS / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    readme = Path(__file__).parent / "README.md"
    readme.write_text(between(readme.read_text(encoding="utf-8"), text, START, END), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
