"""Training with the layers' weights spread over processes: torch's fully_shard (FSDP2), one group per layer.

A layer's weights are gathered when it is needed and let go after it; its gradients are summed as they are spread. What
is not in a layer (embeddings, last norm, head) stays whole in each process, so that the head in pieces and tied weights
work as always; its gradients are summed once a step (collectives.add_gradients).
Every process must make equally many passes, since each gathers: see Step.idle in dlma/training/rule.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from dlma.errors import UserError
from dlma.model.language import is_sharded


def shard_layers(network: nn.Module, device: torch.device) -> None:
    """Spread each layer of the network over all processes, in place.

    raises: UserError for an architecture without layers to go by, and for weights packed into a few bits
    """
    if not all(parameter.is_floating_point() for parameter in network.parameters()):
        raise UserError("trainer.strategy=fsdp: weights packed into a few bits cannot be spread: trainer=ddp")
    layers = [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError("trainer.strategy=fsdp: this architecture has no layers to spread: trainer=ddp")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in layers:
        spread = fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        spread.set_gradient_divide_factor(1.0)  # the sum, as in collectives.add_gradients
        spread.set_force_sum_reduction_for_comms(True)  # in a way that gloo knows too


def apart(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters that are whole in each process, and those that are spread; without an empty list."""
    both = list(parameters)
    split = [[p for p in both if not is_sharded(p)], [p for p in both if is_sharded(p)]]
    return [group for group in split if group]


@torch.no_grad()
def clip(parameters: Sequence[nn.Parameter], limit: float) -> float:
    """Clip the whole gradient, wherever its parts are, to a norm; the norm it had before."""
    square = torch.zeros((), dtype=torch.float64)
    spread = torch.zeros((), dtype=torch.float64)
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if is_sharded(parameter):
            spread += cast(DTensor, parameter.grad).to_local().double().pow(2).sum().cpu()
        else:
            square += parameter.grad.double().pow(2).sum().cpu()
    held = spread.to(parameters[0].device)
    dist.all_reduce(held)
    norm = (square + held.cpu()).sqrt().item()
    if norm > limit:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(limit / (norm + 1e-6))  # as torch's clip_grad_norm_
    return norm


def whole(network: nn.Module) -> dict[str, Tensor]:
    """The state of the network, put together in every process; on the CPU."""
    state = network.state_dict()
    return {name: (v.full_tensor() if isinstance(v, DTensor) else v).cpu() for name, v in state.items()}
