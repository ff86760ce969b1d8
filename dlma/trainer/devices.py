"""Whether this machine has the devices that a run asks for."""

from __future__ import annotations

import torch

from dlma.errors import UserError

_OTHERS = "choose trainer=cpu, or start the run on a machine that has them"


def require(accelerator: str, count: int) -> None:
    """Raise UserError unless so many devices of a kind are here; a CPU serves any number of processes."""
    if accelerator == "gpu" and torch.cuda.device_count() < count:
        raise UserError(
            f"trainer.accelerator=gpu, trainer.devices={count}: torch sees {torch.cuda.device_count()} here; {_OTHERS}"
        )
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"trainer.accelerator=mps: torch sees no Apple GPU here; {_OTHERS}")
    if accelerator == "mps" and count > 1:
        raise UserError(f"trainer.devices={count}: an Apple GPU serves one process: trainer.devices=1")
