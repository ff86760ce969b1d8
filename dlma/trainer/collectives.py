"""The processes of a distributed run, as plain functions: one process is rank 0 of 1."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from pytorch_lightning.plugins.environments import ClusterEnvironment
from torch import Tensor
from torch.distributed.tensor import DTensor

from dlma.trainer.place import Place, address

T = TypeVar("T")
_BUCKET = 8 << 20  # numbers sent at once
_MEETING = timedelta(minutes=10)  # until all machines of a run have started their processes
_PATIENCE = timedelta(days=30)  # rank 0 may be busy for long while the others wait: trainer/pulse.py sees who is gone
_alone = False
_place = Place()
_words: dist.ProcessGroup | None = None  # the group for what is no tensor on a device


def meet(place: Place) -> tuple[dist.Store, dist.Store]:
    """Two connections to the store that all processes of a run share; returns when the one that holds it is there."""
    host, port = address()
    url = f"tcp://{host}:{port}?rank={place.number}&world_size={place.count}"
    store, _, _ = next(dist.rendezvous(url, timeout=_MEETING))
    start = f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    return dist.PrefixStore(start, store), dist.PrefixStore(start, store.clone())


def join(store: dist.Store, place: Place, *, gpu: bool) -> None:
    """Connect this process with the others; returns when all are there."""
    global _place, _words
    if gpu:
        torch.cuda.set_device(place.local % torch.cuda.device_count())
    backend = "nccl" if gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=place.number, world_size=place.count, timeout=_PATIENCE)
    _place, _words = place, dist.new_group(backend="gloo", timeout=_PATIENCE)


def leave() -> None:
    """Be one process again."""
    global _place, _words
    _place, _words = Place(), None
    dist.destroy_process_group()


@contextmanager
def alone() -> Iterator[None]:
    """In the block this process works without the others, which wait."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def world() -> int:
    """How many processes work on what is being done."""
    return dist.get_world_size() if not _alone and dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if world() > 1 else 0


def same(value: T) -> T:
    """The value that the first process gives, in all of them."""
    if world() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, group=_words)
    return held[0]


def wait() -> None:
    """Return when all processes have come here."""
    if world() > 1:
        dist.barrier(group=_words)


def most(value: int, device: torch.device) -> int:
    """The largest value that a process has."""
    table = torch.tensor(value, dtype=torch.int64)
    if world() > 1:
        table = table.to(device)
        dist.all_reduce(table, dist.ReduceOp.MAX)
    return int(table)


def totals(values: Iterable[float], device: torch.device) -> list[float]:
    """Each value summed over all processes, in float64 on the CPU."""
    table = torch.tensor(list(values), dtype=torch.float64)
    if world() > 1:
        table = table.to(device)
        dist.all_reduce(table)
    return table.tolist()


def gathered(values: list) -> list:
    """The values of all processes, one after another."""
    if world() == 1:
        return values
    held: list = [None] * world()
    dist.all_gather_object(held, values, group=_words)
    return [value for part in held for value in part]


def apart(strategy) -> AbstractContextManager:
    """In the block, backward passes do not talk to other processes: `add_gradients` does that once a step.

    Lightning's DistributedDataParallel would send after each backward pass; and a process that runs out of memory
    in the middle of one, and goes back, would leave the others waiting.
    """
    model = strategy.model
    return model.no_sync() if hasattr(model, "no_sync") else nullcontext()


def add_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Sums the gradients over all processes, in place; a process without a gradient adds nothing.

    Those of weights that are spread over the processes are summed already (trainer/fsdp.py).
    """
    if world() == 1:
        return
    bucket: list[Tensor] = []
    for parameter in parameters:
        if isinstance(parameter, DTensor):
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        bucket.append(parameter.grad)
        if sum(g.numel() for g in bucket) >= _BUCKET:
            _add(bucket)
            bucket = []
    _add(bucket)


def _add(bucket: list[Tensor]) -> None:
    if not bucket:
        return
    flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
    dist.all_reduce(flat)
    for gradient, whole in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
        gradient.copy_(whole.view_as(gradient))


class Joined(ClusterEnvironment):
    """Tells Lightning that the processes run already, and are connected."""

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return address()[0]

    @property
    def main_port(self) -> int:
        return address()[1]

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return world()

    def set_world_size(self, size: int) -> None:
        """Fixed by the launcher; Lightning may not change it."""

    def global_rank(self) -> int:
        return rank()

    def set_global_rank(self, rank: int) -> None:
        """Fixed by the launcher; Lightning may not change it."""

    def local_rank(self) -> int:
        return _place.local % _visible()

    def node_rank(self) -> int:
        return _place.node


def machines() -> dict[str, Any]:
    """What Lightning's Trainer is told of the processes that work on what is being done."""
    if not (dist.is_available() and dist.is_initialized()):
        return {"devices": 1, "num_nodes": 1, "plugins": []}
    devices = 1 if world() == 1 else _visible()
    return {"devices": devices, "num_nodes": -(-world() // devices), "plugins": [Joined()]}


def _visible() -> int:
    """The devices that a process of this machine sees: SLURM may show each its own alone."""
    if dist.get_backend() != "nccl":
        return _place.beside
    return min(_place.beside, torch.cuda.device_count())
