"""Weights of fewer digits than their steps: copies go the way of float32 weights; the weights are these, rounded."""

import copy
import dataclasses

import pytest
import torch
from scored_examples import OPTIM


@pytest.mark.parametrize("name", ["adamw", "rmsprop"])
def test_steps_below_half_a_unit_of_a_weight_add_up(name):
    """bfloat16 has 8 digits: between 1 and 2 its unit is 2^-7, and a step of 1e-4 alone moves nothing."""
    made = dataclasses.replace(OPTIM, optimizer=name, lr=1e-4, weight_decay=0.25)
    start = torch.linspace(-2, 2, 64).to(torch.bfloat16)
    ours, theirs = (torch.nn.Parameter(start.to(dtype, copy=True)) for dtype in (torch.bfloat16, torch.float32))
    optimizers = [made.build([{"params": [weight]}], fused=False) for weight in (ours, theirs)]
    for step in range(200):
        gradient = torch.randn(64, generator=torch.Generator().manual_seed(step)).to(torch.bfloat16) + 0.5
        for weight, optimizer in zip((ours, theirs), optimizers, strict=True):
            weight.grad = gradient.to(weight.dtype)
            for group in optimizer.param_groups:
                group["lr"] = 1e-4 * (1 + step % 2)
            optimizer.step()
        assert torch.equal(ours, theirs.to(torch.bfloat16))
    assert (ours != start).float().mean() > 0.5


def test_a_resumed_optimizer_of_rounded_weights_keeps_every_digit():
    def begin(values):
        weight = torch.nn.Parameter(values.clone())
        return weight, dataclasses.replace(OPTIM, lr=2e-3).build([{"params": [weight]}], fused=False)

    def go(weight, optimizer, steps):
        for step in steps:
            weight.grad = torch.randn(8, generator=torch.Generator().manual_seed(step)).to(torch.bfloat16)
            optimizer.step()

    whole, optimizer = begin(torch.linspace(0.5, 1, 8).to(torch.bfloat16))
    go(whole, optimizer, range(10))
    half, optimizer = begin(torch.linspace(0.5, 1, 8).to(torch.bfloat16))
    go(half, optimizer, range(5))
    rest, resumed = begin(half.detach())
    go(rest, resumed, range(1))  # what it did before is replaced
    rest.data.copy_(half)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    go(rest, resumed, range(5, 10))
    kept = resumed.state[rest]["copy"]
    assert torch.equal(rest, whole) and kept.dtype == torch.float32
    assert (whole != half).any() and (kept != whole.float()).all()
