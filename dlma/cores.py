"""Whose cores these are: how many threads torch gets and why, and how they wait for one another.

OpenMP counts the cores that a process may run on (its affinity) and knows nothing of a container's quota: beyond it
threads are stopped in the middle of their work, and all others wait for them. Nothing here imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
said = ""  # where this process's number of threads is from, once trainer/runtime.py has set it
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
GROUPS, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def wait_briefly() -> None:
    """Let threads that wait for others spin a tenth as long as by default, unless a variable says how they wait.

    Before torch is imported. Else two runs on one machine hold up one another. Sleeping at once
    (OMP_WAIT_POLICY=passive) does more beside another run, and takes a quarter longer where there is none. GNU's
    OpenMP reads the variable, and so do the processes that this one starts.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = "30000"


def threads(wanted: int) -> tuple[int, str]:
    """Threads that torch is to have, 0 for its own choice, and where the number is from, in words.

    wanted: trainer.threads
    """
    named = [name for name in VARIABLES if os.environ.get(name)]
    own, limit = allowed(), quota()
    if wanted:
        return wanted, "trainer.threads"
    if named:
        return 0, named[0]
    if limit is not None and limit < own:
        return max(1, int(limit)), f"{limit:g} of {os.cpu_count()} cores by the container's quota"
    if own < (os.cpu_count() or 1):
        return 0, f"{own} of {os.cpu_count()} cores are this process's"
    return 0, f"torch's choice on {own} {'core' if own == 1 else 'cores'}"


def allowed() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota(groups: Path = GROUPS, mount: Path = MOUNT) -> float | None:
    """The processor time per time of this process's control groups (cgroup v1 and v2), in cores; None without limit.

    A group is limited by those above it too. Inside of a container its name may be that of the host, of which only the
    mount itself is seen.
    """
    found = [limit for folder in _folders(groups, mount) if (limit := _limit(folder)) is not None]
    return min(found, default=None)


def _folders(groups: Path, mount: Path) -> Iterator[Path]:
    """The folders of this process's groups that count processor time, and those above them."""
    for line in _text(groups).splitlines():
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        for root in [mount / controllers, mount / "cpu"] if controllers else [mount, mount / "unified"]:
            inside = PurePosixPath(path.lstrip("/"))
            yield from (root / part for part in [inside, *inside.parents])


def _limit(folder: Path) -> float | None:
    """The limit that a group itself has, by the files of either version."""
    new = _text(folder / "cpu.max").split()
    old = [*_text(folder / "cpu.cfs_quota_us").split(), *_text(folder / "cpu.cfs_period_us").split()]
    for words in (new, old):
        if len(words) == 2 and words[0] not in ("max", "-1") and int(words[1]):
            return int(words[0]) / int(words[1])
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
