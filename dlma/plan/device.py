"""The device that a plan is for: one of the table in conf/mode/plan.yaml, or this machine."""

from __future__ import annotations

from collections.abc import Mapping

from dlma.cost.flops import Device
from dlma.errors import UserError
from dlma.plan.dry_run import HERE


def named(devices: Mapping[str, dict], name: str, dtype: str) -> Device:
    """A device of the table, with its rate in this dtype; raises UserError for one that is not there."""
    if name not in devices:
        raise UserError(f"mode.device={name}: choose {HERE} or one of {', '.join(devices)}")
    node = devices[name]
    rates = (node[dtype] * 1e12, node["bandwidth"] * 1e9)
    return Device(name, node["memory_gb"] * 1e9, *rates, node["source"], node["link"] * 1e9)


def this_machine(config, dtype: str, accelerator: str) -> Device:
    """This machine as a device, its rates measured: the best matrix product, and copying.

    config: the model's, by whose shapes the product is made
    """
    import torch

    from dlma.model.memory import device_bytes
    from dlma.model.meter import copying_rate, matmul_peak

    device = torch.device("cuda" if accelerator == "gpu" and torch.cuda.is_available() else "cpu")
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    rate, copied = matmul_peak(512, config.hidden_size, inner, getattr(torch, dtype), device), copying_rate(device)
    return Device(HERE, device_bytes(device), rate, copied, "measured now", link=copied)
