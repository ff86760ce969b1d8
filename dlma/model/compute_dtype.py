"""The type of a model's products where the config leaves it to the machine (`recipe.dtype=auto`).

On a CPU, products of the model's own shapes are timed in float32 and in bfloat16, once per machine and library set, and
their rates are kept in the cache folder. A GPU takes bfloat16 where it has it. bfloat16 keeps three digits, so it has
to be worth it (WORTH). Where all weights are trained float32 is taken: steps of a small learning rate are below half a
unit of a bfloat16 weight, so that copies in float32 have to be kept (training/float32_copies.py), and no memory is
saved; adapters are float32 whatever the type of the frozen weights.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from dlma import files
from dlma.errors import UserError
from dlma.model import headers
from dlma.model.load import ModelSpec
from dlma.store.fingerprint import key_of
from dlma.store.machine import arithmetic, instructions, machine
from dlma.wheels import cache_folder

AUTO = "auto"
TYPES = ("float32", "bfloat16")
WORTH = 1.5  # so many times as fast bfloat16 has to be: less would not make up for its digits, and near ties would flip
_ROWS = 512  # tokens of a timed product: as a pass of scoring has
_LARGEST = 1 << 26  # numbers of a matrix that is timed: larger ones (of vocabularies) are cut
_SECONDS = 0.2  # of timing a shape, or one product where that takes longer

Shape = tuple[int, ...]
Timer = Callable[[Counter[Shape], str, int], float]


@dataclass(frozen=True)
class Choice:
    """The type that was chosen, and why, in words for the engine's line."""

    dtype: str
    why: str


ALL_TRAINED = Choice("float32", f"{AUTO}: all weights are trained")


def decide(spec: ModelSpec, *, accelerator: str, threads: int, timer: Timer | None = None) -> Choice:
    """The type of the products of a model that is to be trained as `spec` says.

    accelerator: as the trainer has it; threads: of torch, 0 for its own choice
    timer: FLOP/s of products of these shapes, each so often, in a type, on so many threads
    """
    if spec.lora is None and spec.adapter is None:
        return ALL_TRAINED
    if accelerator != "cpu":
        return _of_device(accelerator)
    return of_rates(rates(shapes_of(spec), threads, timer or timed))


def of_rates(found: dict[str, float]) -> Choice:
    """What follows from the rates, in FLOP/s by type."""
    chosen = "bfloat16" if found["bfloat16"] >= WORTH * found["float32"] else "float32"
    told = ", ".join(f"{name} {found[name] / 1e9:.0f}" for name in TYPES)
    return Choice(chosen, f"{AUTO}: {told} GFLOP/s")


def shapes_of(spec: ModelSpec) -> Counter[Shape]:
    """The shapes of the model's matrices, and how many have each, by the headers of its files."""
    found: headers.Shapes = {}
    for file in sorted(spec.folder.glob("*.safetensors")):
        found |= headers.shapes(file, f"model.path={spec.folder}")
    matrices: Counter[Shape] = Counter(shape for shape in found.values() if len(shape) == 2)
    if not matrices:
        raise UserError(f"model.path={spec.folder}: has no matrices to time for recipe.dtype={AUTO}: give the type")
    return matrices


def rates(shapes: Counter[Shape], threads: int, timer: Timer) -> dict[str, float]:
    """FLOP/s by type: those that were measured here before, else measured now and kept."""
    here = machine(accelerator="cpu", devices=1, strategy="", threads=threads)
    what = {
        "machine": {**here, "instructions": instructions(), "system": platform.system()},
        "libraries": {"torch": importlib.metadata.version("torch"), **arithmetic()},
        "shapes": sorted([*shape, count] for shape, count in shapes.items()),
    }
    place = cache_folder() / "products" / f"{key_of(what)}.json"
    with _alone(place.parent):
        known = _rates_in(files.read_json(place))
        if known is None:
            known = {name: timer(shapes, name, threads) for name in TYPES}
            with contextlib.suppress(OSError):  # without its memory it is slower, not wrong
                files.write_json(place, {**what, "rates": known})
    return known


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time, so that none disturbs another's timing, where the folder can be written to."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(folder / ".lock"))
        yield


def _rates_in(record: dict) -> dict[str, float] | None:
    """The rates that a file of the cache holds; None where it does not."""
    found = record.get("rates")
    whole = isinstance(found, dict) and all(isinstance(found.get(n), float | int) and found[n] > 0 for n in TYPES)
    return found if whole else None


def timed(shapes: Counter[Shape], dtype: str, threads: int) -> float:
    """FLOP/s of one product with each of a model's matrices, the best of several of each shape."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        operations = seconds = 0.0
        for (outputs, inputs), count in shapes.items():
            outputs = max(1, min(outputs, _LARGEST // inputs))
            operations += count * 2 * _ROWS * outputs * inputs
            seconds += count * _seconds_of(outputs, inputs, getattr(torch, dtype))
    finally:
        torch.set_num_threads(before)
    return operations / seconds


def _seconds_of(outputs: int, inputs: int, dtype) -> float:
    import torch

    from dlma.functional.products import linear

    rows, weight = torch.ones(_ROWS, inputs, dtype=dtype), torch.ones(outputs, inputs, dtype=dtype)
    best, until = float("inf"), time.perf_counter() + _SECONDS
    linear(rows, weight)  # the first one loads kernels
    while True:
        start = time.perf_counter()
        linear(rows, weight)
        end = time.perf_counter()
        best = min(best, end - start)
        if end > until:
            return best


def of_device(has: bool) -> Choice:
    """What follows from whether a GPU has bfloat16."""
    return Choice("bfloat16" if has else "float32", f"{AUTO}: the device has {'' if has else 'no '}bfloat16")


def _of_device(accelerator: str) -> Choice:
    import torch

    if accelerator == "gpu":
        has = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.backends.mps.is_available() and torch.backends.mps.is_macos_or_newer(14, 0)
    return of_device(has)
