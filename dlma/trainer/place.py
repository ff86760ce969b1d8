"""Which of a run's processes this one is, by the environment that torchrun or SLURM's srun gave it."""

from __future__ import annotations

import os
import re
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

from dlma import files

QUIET = ("TORCH_CPP_LOG_LEVEL", "ERROR")  # for the environment: no traces of connections that broke when a run ended
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
_SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID")
_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"


@dataclass(frozen=True)
class Place:
    """Of `count` processes of a run the one with this number.

    local: its number on this machine, of `beside`
    node: the machine's number
    launcher: what started the processes; empty for a process by itself
    """

    number: int = 0
    count: int = 1
    local: int = 0
    beside: int = 1
    node: int = 0
    launcher: str = ""


def here() -> Place:
    """This process's place."""
    said = os.environ
    if all(name in said for name in _TORCHRUN):
        number, count, local, beside, node = (int(said[name]) for name in _TORCHRUN)
        return Place(number, count, local, beside, node, "torchrun")
    if int(said.get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # of a step that srun has started, and no batch script
        number, count, local, node = (int(said[name]) for name in _SLURM)
        return Place(number, count, local, _tasks(said["SLURM_STEP_TASKS_PER_NODE"])[node], node, "srun")
    return Place()


def address() -> tuple[str, int]:
    """Where the processes meet: MASTER_ADDR and MASTER_PORT, else the first machine of SLURM's step."""
    said = os.environ
    if "MASTER_ADDR" in said:
        return said["MASTER_ADDR"], int(said.get("MASTER_PORT", "29500"))
    from pytorch_lightning.plugins.environments import SLURMEnvironment

    step = f"{said['SLURM_JOB_ID']}.{said['SLURM_STEP_ID']}"
    port = int(said.get("MASTER_PORT", 15_000 + zlib.crc32(step.encode()) % 15_000))  # below those that systems lend
    return SLURMEnvironment.resolve_root_node_address(said["SLURM_STEP_NODELIST"]), port


def leave_word(reason: str) -> None:
    """Leave the reason why this process ends where torch's launcher looks for it."""
    if _ERROR_FILE in os.environ:
        more = {"py_callstack": reason, "timestamp": str(int(time.time()))}
        files.write_json(Path(os.environ[_ERROR_FILE]), {"message": {"message": reason, "extraInfo": more}})


def _tasks(said: str) -> list[int]:
    """Tasks on each machine, as SLURM writes them: `2(x3),1` is 2, 2, 2, 1."""
    found = (re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part) for part in said.split(","))
    return [int(one[1]) for one in found if one is not None for _ in range(int(one[2] or 1))]
