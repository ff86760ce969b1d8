"""The processes of a distributed run, as plain functions: one process is rank 0 of 1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist
from pytorch_lightning.plugins.environments import ClusterEnvironment
from torch import Tensor
from torch.distributed.tensor import DTensor

_BUCKET = 8 << 20  # numbers sent at once
_PATIENCE = timedelta(hours=2)  # a rank may sample its last shard for long while the others wait
_alone = False


def join(number: int, processes: int, port: int, *, gpu: bool) -> None:
    """Become process `number` of so many on this machine; returns when all are there."""
    if gpu:
        torch.cuda.set_device(number)
    place = f"tcp://127.0.0.1:{port}"
    backend = "nccl" if gpu else "gloo"
    dist.init_process_group(backend, init_method=place, rank=number, world_size=processes, timeout=_PATIENCE)


def leave() -> None:
    """Be one process again."""
    if dist.is_available() and dist.is_initialized():
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


def same(value: object) -> object:
    """The value that the first process gives, in all of them."""
    if world() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held)
    return held[0]


def wait() -> None:
    """Return when all processes have come here."""
    if world() > 1:
        dist.barrier()


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
    dist.all_gather_object(held, values)
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
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return 0

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
        return rank()

    def node_rank(self) -> int:
        return 0
