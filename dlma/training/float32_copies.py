"""An optimizer for weights of fewer digits than its steps have: it moves copies in float32, and the weights are these,
rounded.

A step of 5e-7 is far below half a unit of a bfloat16 weight: added to the weight itself it is rounded away, and a
training leaves nearly the model that it began with. The copies are what FSDP's mixed precision and DeepSpeed keep too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor

Maker = Callable[[list[dict]], torch.optim.Optimizer]


class Float32Copies(torch.optim.Optimizer):
    """Steps of another optimizer on float32 copies of the weights, a weight at a time.

    make: that optimizer, of groups of weights
    lr: the learning rate until a group has another
    """

    def __init__(self, groups: Iterable[dict], make: Maker, *, lr: float) -> None:
        super().__init__(groups, {"lr": lr})
        self._make = make
        self._inner: dict[Tensor, torch.optim.Optimizer] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move each weight that has a gradient; its state holds the copy beside what the other optimizer keeps."""
        told = None
        if closure is not None:
            with torch.enable_grad():
                told = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group["lr"])
        return told

    def _move(self, weight: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[weight]
        if weight not in self._inner:
            self._begin(weight, state)
        inner, copy = self._inner[weight], state["copy"]
        inner.param_groups[0]["lr"] = rate
        copy.grad = gradient.float()
        inner.step()
        copy.grad = None
        weight.copy_(copy)
        state.update(inner.state[copy])

    def _begin(self, weight: Tensor, state: dict) -> None:
        """The other optimizer of one weight; after a resume point it goes on from the state that was kept."""
        copy = state.setdefault("copy", weight.detach().float())
        kept = {name: value for name, value in state.items() if name != "copy"}
        self._inner[weight] = self._make([{"params": [copy]}])
        if kept:  # as it puts the state where it wants it: a fused one its steps on the device too
            inner = self._inner[weight]
            inner.load_state_dict({"state": {0: kept}, "param_groups": inner.state_dict()["param_groups"]})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As of any optimizer, but all digits of the state are kept: torch would round it to the weights' type."""
        super().load_state_dict(state_dict)
        saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        own = chain.from_iterable(group["params"] for group in self.param_groups)
        for name, weight in zip(saved, own, strict=True):
            if name in state_dict["state"]:
                kept = state_dict["state"][name]
                self.state[weight] = {key: _placed(value, weight) for key, value in kept.items()}
        self._inner = {}


def _placed(value: Any, weight: Tensor) -> Any:
    """A part of a weight's state, copied to the weight's device; the number of steps stays where it is."""
    if not isinstance(value, Tensor):
        return value
    return value.clone() if value.dim() == 0 else value.to(weight.device, copy=True)
