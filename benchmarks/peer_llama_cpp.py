"""The peer in sampling that runs quantised weights: llama.cpp, batched through the low-level API of llama-cpp-python.

All prompts of a batch are read in one call, each a sequence of its own; then every call draws a token for each row. Not
among the project's dependencies: DLMA_BENCH_GGUF names the files that are compared, separated by ":".
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from benchmarks.clock import Clock
from benchmarks.peers import Task

READ_AT_ONCE = 512  # tokens of a pass (n_ubatch), llama.cpp's own default


def files() -> list[Path]:
    """The models in GGUF that are at hand; none without llama-cpp-python."""
    named = os.environ.get("DLMA_BENCH_GGUF", "") if find_spec("llama_cpp") else ""
    return [Path(name) for name in named.split(":") if name]


class Model:
    """Weights in llama.cpp, and how many threads it may use."""

    def __init__(self, path: Path, threads: int) -> None:
        import llama_cpp

        self.api, self.threads = llama_cpp, threads
        llama_cpp.llama_backend_init()
        llama_cpp.llama_log_set(_SILENT, None)
        settings = llama_cpp.llama_model_default_params()
        self.weights = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
        if not self.weights:
            raise ValueError(f"{path}: llama.cpp cannot load it")

    @contextmanager
    def context(self, rows: int, longest: int, tokens: int) -> Iterator:
        """Room for so many rows, and calls of so many tokens at most."""
        api, settings = self.api, self.api.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = rows * (longest + 32), rows
        settings.n_batch, settings.n_ubatch = max(tokens, READ_AT_ONCE), READ_AT_ONCE
        settings.n_threads = settings.n_threads_batch = self.threads
        held = api.llama_init_from_model(self.weights, settings)
        if not held:
            raise ValueError(f"llama.cpp has no room for {rows} rows of {longest} tokens")
        try:
            yield held
        finally:
            api.llama_free(held)


def sample(model: Model, task: Task, clock: Clock, rows: int) -> int:
    """One answer of imposed length to each context, at temperature 1; returns how many tokens were drawn."""
    assert task.lengths is not None
    order = sorted(range(len(task.contexts)), key=lambda i: len(task.contexts[i]))
    longest = max(map(len, task.contexts)) + task.limit
    most = max(sum(len(task.contexts[i]) for i in order[start : start + rows]) for start in range(0, len(order), rows))
    with model.context(rows, longest, most) as held, clock.span("work"):
        for start in range(0, len(order), rows):
            members = order[start : start + rows]
            _answer(model.api, held, [task.contexts[i] for i in members], [task.lengths[i] for i in members], most)
    return sum(task.lengths)


def _answer(api, held, contexts: Sequence[Sequence[int]], lengths: Sequence[int], most: int) -> None:
    api.llama_memory_clear(api.llama_get_memory(held), True)
    drawer = api.llama_sampler_init_dist(0)
    batch = api.llama_batch_init(most, 0, 1)
    try:
        ends = _fill(batch, {row: (0, ids) for row, ids in enumerate(contexts)})
        for drawn in range(max(lengths)):
            _require(api.llama_decode(held, batch))
            alive = {row: place for row, place in ends.items() if drawn < lengths[row]}
            tokens = {row: api.llama_sampler_sample(drawer, held, place) for row, place in alive.items()}
            ends = _fill(batch, {row: (len(contexts[row]) + drawn, [token]) for row, token in tokens.items()})
    finally:
        api.llama_batch_free(batch)
        api.llama_sampler_free(drawer)


def _fill(batch, rows: dict[int, tuple[int, Sequence[int]]]) -> dict[int, int]:
    """Put each row's tokens, from its position on, into the batch; the place of each row's last token."""
    place, ends = 0, {}
    for row, (first, ids) in rows.items():
        for offset, token in enumerate(ids):
            batch.token[place], batch.pos[place] = token, first + offset
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, row
            batch.logits[place] = offset == len(ids) - 1
            place += 1
        ends[row] = place - 1
    batch.n_tokens = place
    return ends


def _require(code: int) -> None:
    if code != 0:
        raise RuntimeError(f"llama_decode failed with {code}")


def _silent():
    import ctypes

    return ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda level, text, data: None)


_SILENT = _silent()
