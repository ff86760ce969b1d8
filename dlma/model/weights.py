"""Reading weights from disk: a missing, unexpected or mis-shaped tensor is an error that names it.

What transformers fills in or leaves out on purpose is no fault: a head tied to the embeddings, the buffers that a class
computes itself, and the names that the class says it ignores.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from dlma import files
from dlma.errors import UserError, few

_FAULTS = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError)
_REMEDY = "fetch or save the folder again, whole, or give the config.json that belongs to its weights"


class ForeignModule(nn.Module):
    """A module of transformers or PEFT, for the type checker: it has more than `nn.Module` declares."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


def read_network(
    kind: type[Any], folder: Path, where: str, *, apart: tuple[str, ...] = (), **options
) -> PreTrainedModel:
    """`kind.from_pretrained(folder)`; raises UserError, which begins with `where`, unless its weights are all used.

    kind: a class of transformers; apart: beginnings of the names of tensors that the caller reads itself
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what it warns of is refused here
    try:
        network, found = kind.from_pretrained(
            folder,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused here, by name
            use_safetensors=True,
            local_files_only=True,
            **options,
        )
    except _FAULTS as reason:
        _refuse(where, reason)
    finally:
        logging.set_verbosity(verbosity)
    own = {name for name, _ in network.named_buffers()}
    unexpected = [name for name in found["unexpected_keys"] if not name.startswith(apart) and name not in own]
    require_whole(
        where,
        missing=found["missing_keys"],
        unexpected=unexpected,
        misshapen={name: (theirs, ours) for name, theirs, ours in found["mismatched_keys"]},
    )
    return network


def read_adapter(network: nn.Module, folder: Path, *, trainable: bool) -> nn.Module:
    """The network with a saved adapter; raises UserError unless the adapter's weights are all there and all used."""
    from peft import PeftModel
    from peft.utils import SAFETENSORS_WEIGHTS_NAME, get_peft_model_state_dict

    where = f"{folder}: the adapter"
    if files.read_json(folder / "adapter_config.json").get("megatron_config"):  # peft would import by its word
        raise UserError(f"{folder}: adapter_config.json: megatron_config names a module to import; not loaded")
    given = shapes(folder / SAFETENSORS_WEIGHTS_NAME, where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is refused here
            adapted = PeftModel.from_pretrained(
                network, str(folder), is_trainable=trainable, ignore_mismatched_sizes=True
            )
    except _FAULTS as reason:
        _refuse(where, reason)
    wanted = {k: tuple(v.shape) for k, v in get_peft_model_state_dict(adapted, save_embedding_layers=False).items()}
    require_whole(where, **differences(given, wanted, also=adapted.state_dict()))
    return adapted


def read_tensors(path: Path, wanted: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, which has to hold just those that are wanted, in their shapes."""
    given = shapes(path, where)
    require_whole(where, **differences(given, {name: tuple(value.shape) for name, value in wanted.items()}))
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in given}


def read_tensors_of(folder: Path, beginnings: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors of a folder's safetensors files whose names begin so."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys() if name.startswith(beginnings)}  # noqa: SIM118
    return found


def shapes(path: Path, where: str) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a safetensors file, by name."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except _FAULTS as reason:
        _refuse(where, reason)


def differences(given: Mapping, wanted: Mapping, also: Iterable[str] = ()) -> dict:
    """What `require_whole` is told. given, wanted: shapes by name; also: names that may be there besides."""
    return {
        "missing": wanted.keys() - given.keys(),
        "unexpected": given.keys() - wanted.keys() - set(also),
        "misshapen": {n: (given[n], wanted[n]) for n in wanted.keys() & given.keys() if given[n] != wanted[n]},
    }


def require_whole(where: str, *, missing: Iterable[str], unexpected: Iterable[str], misshapen: Mapping) -> None:
    """Raises UserError that names the first of each kind. misshapen: by name, the shape there and the one wanted."""
    odd = [f"{name} {tuple(is_)} instead of {tuple(wanted)}" for name, (is_, wanted) in sorted(misshapen.items())]
    kinds = {"missing": sorted(missing), "unexpected": sorted(unexpected), "of another shape": odd}
    said = [f"{len(names)} {kind}: {few(names)}" for kind, names in kinds.items() if names]
    if said:
        raise UserError(f"{where}: the weights do not load: tensors {'; '.join(said)}: {_REMEDY}")


def weights_at_fault(network: nn.Module) -> str:
    """Which weights are nan or infinite, and what to do, for an error line."""
    with torch.no_grad():
        bad = [n for n, w in network.named_parameters() if w.is_floating_point() and not w.isfinite().all()]
    if bad:
        return f"nan or infinite weights in {few(bad)}: they were damaged or training diverged: take other weights"
    return "its weights are finite, so they are too large for its arithmetic: model.dtype=float32, or other weights"


def _refuse(where: str, reason: Exception) -> NoReturn:
    line = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
    raise UserError(f"{where}: the weights do not load: {line}") from None
