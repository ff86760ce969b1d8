"""What the headers of safetensors files say, read without torch: whether a file is whole, and what its tensors are.

A file is eight bytes with the header's length, the header as JSON, and the tensors' bytes one after the other
(https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dlma.errors import UserError, few

_LONGEST = 100_000_000  # bytes of a header, as the format has it
_AGAIN = "fetch or save the file again"
HEAD = "lm_head"  # as most models name it
Shapes = dict[str, tuple[int, ...]]


def shapes(file: Path, where: str) -> Shapes:
    """The shape of every tensor by name; raises UserError, which begins with `where`, for a file that is not whole."""
    size = file.stat().st_size
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST):
            raise UserError(f"{where}: {file.name} is empty or cut short; {_AGAIN}")
        header = content.read(length)
    try:
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        found = {name: tuple(entry["shape"]) for name, entry in entries.items()}
    except (ValueError, AttributeError, KeyError, TypeError, IndexError):
        raise UserError(f"{where}: {file.name} is no safetensors file: its header cannot be read; {_AGAIN}") from None
    if end != size - 8 - length:
        raise UserError(
            f"{where}: {file.name} has {size:,} bytes, its header says {end + 8 + length:,}: cut short; {_AGAIN}"
        )
    return found


def require_targets(weights: Shapes, rank: int, targets: Sequence[str] | str) -> None:
    """Raise UserError for LoRA targets that are no module of the model, and for a rank that no target can have.

    weights: the shapes of the model's tensors; targets: endings of modules' names, or one pattern of whole names
    """
    modules = {name.removesuffix(".weight"): shape for name, shape in weights.items() if name.endswith(".weight")}
    layers = {name: shape for name, shape in modules.items() if len(shape) == 2}  # (outputs, inputs)
    if layers and not any(_ends(name, HEAD) for name in layers):  # it may share the embedding's tensor, the largest;
        layers[HEAD] = max(layers.values())  # whether the model has one at all is seen in `require_all`
    if targets == "all-linear":
        chosen = layers
    elif isinstance(targets, str):
        chosen = {name: shape for name, shape in layers.items() if re.fullmatch(targets, name)}
    else:
        unknown = [one for one in targets if not any(_ends(name, one) for name in layers)]
        chosen = {name: shape for name, shape in layers.items() if any(_ends(name, one) for one in targets)}
        if unknown:
            raise UserError(f"recipe.lora.targets: the model has no {few(unknown)}; {_names(layers)}")
    if not chosen:
        raise UserError(f"recipe.lora.targets: no module of the model fits {targets!r}; {_names(layers)}")
    largest = max((min(shape) for shape in chosen.values() if shape[1] > 1), default=rank)  # (n, 1): packed bits
    if rank > largest:
        raise UserError(f"recipe.lora.rank: {rank} is above the {largest} that a target can have; lower it")


def require_all(targets: Sequence[str], adapted: Sequence[str]) -> None:
    """Raise UserError for named targets that are none of the adapted modules: PEFT adapts the others without a word."""
    unknown = [one for one in targets if not any(_ends(name, one) for name in adapted)]
    if unknown:
        raise UserError(f"recipe.lora.targets: the model has no {few(unknown)}; take it out")


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


def _names(layers: Iterable[str]) -> str:
    return f"it has {few(sorted({name.rpartition('.')[2] for name in layers}), 12)}, or all-linear"
