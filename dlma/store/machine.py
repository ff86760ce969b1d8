"""What of a machine and its surroundings moves the last digits of a sum, without loading torch.

Variables that libraries read to choose another arithmetic belong to a stage's key where they are set. The processor,
the devices and the number of threads do not: they stand in the manifest, and a stage that was computed under others is
used, with a line. Clock, time zone, locale and the order of hashes change nothing (tests/system/test_surroundings.py).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlma import cores

ARITHMETIC = (
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG"),
    *("TORCH_BLAS_PREFER_CUBLASLT", "TORCH_LINALG_PREFER_CUSOLVER", "CUDNN_DETERMINISTIC"),
)
_CPU_INFO = Path("/proc/cpuinfo")
_GPUS = Path("/proc/driver/nvidia/gpus")


def arithmetic() -> dict[str, str]:
    """The variables of ARITHMETIC that are set."""
    return {name: os.environ[name] for name in ARITHMETIC if os.environ.get(name)}


def placed(trainer: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """What the node `trainer` says of where it computes, in so many processes: the arguments of `machine`."""
    default = {"accelerator": "cpu", "devices": 1, "strategy": "ddp", "threads": 0}
    found = default | {name: trainer[name] for name in default if name in trainer}
    return found | ({"devices": processes} if processes > 1 else {})


def machine(*, accelerator: str, devices: int, strategy: str, threads: int) -> dict[str, str]:
    """What a trainer's settings amount to here: the processor, the threads and the devices, in words."""
    found = {"processor": _processor(), "threads": _threads(threads), "accelerator": accelerator}
    if accelerator != "cpu":
        found["device"] = ", ".join(sorted(set(_gpus()))) or "unknown"
    if devices > 1:
        found["devices"] = f"{devices}, {strategy}"
    return found


def difference(then: dict[str, str], here: dict[str, str]) -> str:
    """What differs, as "threads: 4 then, 1 here"; empty where nothing does."""
    names = [name for name in {**then, **here} if then.get(name) != here.get(name)]
    return "; ".join(f"{name}: {then.get(name, 'none')} then, {here.get(name, 'none')} here" for name in names)


def _threads(wanted: int) -> str:
    """Threads of torch: what the config, a variable or a quota says, else its own choice among the cores."""
    count, why = cores.threads(wanted)
    if why in cores.VARIABLES:
        return os.environ[why]
    return str(count) if count else f"torch's choice of {cores.allowed()}"


def _processor() -> str:
    """The processor's name, as the system has it."""
    named = (line.partition(":")[2].strip() for line in _lines(_CPU_INFO) if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def instructions() -> str:
    """The processor's sets of instructions, as the system has them; empty where it does not say."""
    named = (line for line in _lines(_CPU_INFO) if line.startswith(("flags", "Features")))
    return next(named, "").partition(":")[2].strip()


def _gpus() -> list[str]:
    """The names of NVIDIA's devices, as their driver has them."""
    lines = [line for file in sorted(_GPUS.glob("*/information")) for line in _lines(file)]
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
