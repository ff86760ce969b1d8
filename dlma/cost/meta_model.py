"""Models without content: the shape of a model from its config alone, to count with before anything is loaded.

Weights, activations and caches are torch's fake tensors: every operation runs, nothing is computed or held. `LiveBytes`
adds up what would be held. docs/plan.md holds the counts against measured peaks.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from transformers import AutoConfig, AutoModelForCausalLM

from dlma.errors import UserError
from dlma.model.language import LanguageModel, _with_adapter, causal_of
from dlma.model.load import ModelSpec
from dlma.model.weights import ForeignModule

_WITH_A_COPY = {torch.ops.aten.logsumexp.default}  # inside, the input less its maximum is held as well
_SCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations make, as long as they live.

    watch: asked at every new peak; its last answer is `watched`
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.watched = 0
        self.watch: Callable[[], int] = lambda: 0
        self.known: weakref.WeakSet = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._meet, out)
        if func in _WITH_A_COPY:
            self._rise(args[0].nbytes)
        return out

    def restart(self) -> int:
        """Let the peak count from here; what lives now."""
        self.peak, self.watched = self.live, self.watch()
        return self.live

    def _meet(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self.known:
            return
        self.known.add(storage)
        size = storage.nbytes()
        self.live += size
        self._rise(0)
        weakref.finalize(storage, self._part, size)

    def _rise(self, passing: int) -> None:
        """Note a new peak, with so many bytes that live no longer than an operation."""
        if self.live + passing > self.peak:
            self.peak, self.watched = self.live + passing, self.watch()

    def _part(self, size: int) -> None:
        self.live -= size


class Blueprint(LanguageModel):
    """A language model of fake tensors: it can be run and differentiated, and holds no number.

    live: what its tensors would take, counted
    after_body: bytes that lived when the last pass through the body, without the head, had ended
    """

    def __init__(self, network: nn.Module, name: str, live: LiveBytes) -> None:
        self.network = cast(ForeignModule, network)
        self.name = name
        self.causal = causal_of(self.network)
        self.eos_ids = frozenset()
        self.pad_id = 0
        self.autocast = None
        self.checked, self.padded = {}, {}
        self.plain_head = not any(getattr(self.causal.config, name, None) for name in _SCALED)
        self.live = live
        self.after_body = 0

    def states(self, *args, **named) -> Tensor:
        out = super().states(*args, **named)
        self.after_body = self.live.live
        return out

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that training changes."""
        return [p for p in self.network.parameters() if p.requires_grad]


@contextmanager
def drawn(spec: ModelSpec, config) -> Iterator[Blueprint]:
    """A blueprint from a transformers config, within whose block every new tensor is fake and counted."""
    dtype = getattr(torch, spec.dtype)  # whatever the config says of the dtype that was saved
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=spec.trust_remote_code)
        network = _with_adapter(network.eval(), spec)
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        _give_fake_tensors(network)
        yield Blueprint(network, spec.name, live)


def _give_fake_tensors(network: nn.Module) -> None:
    """Put new tensors in the place of those without a device; shared ones stay shared."""
    weights: dict[int, nn.Parameter] = {}
    buffers: dict[int, Tensor] = {}
    for module in network.modules():
        for name, old in list(module._parameters.items()):
            if old is not None:
                new = nn.Parameter(torch.empty(old.shape, dtype=old.dtype), old.requires_grad)
                module._parameters[name] = weights.setdefault(id(old), new)
        for name, held in list(module._buffers.items()):
            if held is not None:
                module._buffers[name] = buffers.setdefault(id(held), torch.empty(held.shape, dtype=held.dtype))


def read_config(path: str, revision: str, trust_remote_code: bool):
    """The transformers config of a local folder or a hub model; nothing else is fetched.

    raises: UserError when there is none
    """
    folder = Path(path).expanduser()
    local = folder.is_dir()
    try:
        return AutoConfig.from_pretrained(
            str(folder) if local else path,
            revision=None if local else revision,
            trust_remote_code=trust_remote_code,
            local_files_only=local,
        )
    except (OSError, ValueError, KeyError) as reason:
        line = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
        raise UserError(f"model.path={path}: its config.json cannot be read: {line}") from None
