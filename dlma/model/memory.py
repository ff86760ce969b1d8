"""Device memory: which errors mean that it ran out, halving the token budget then, and its peak."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys

import torch

from dlma.errors import UserError

_PHRASES = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # malloc.h


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _PHRASES)


def halved(budget: int, widest: int, rows: int) -> int:
    """The next smaller token budget after one of `rows` rows, the widest of `widest` tokens, ran out of memory.

    raises: UserError when it was a single row, which no budget makes smaller
    """
    if rows <= 1:
        raise UserError(
            f"out of memory on a single row of {widest} tokens: lower recipe.max_prompt_tokens or "
            "recipe.max_new_tokens, switch objective.checkpointing on, or take a smaller model"
        )
    return max(1, min(budget, rows * widest) // 2)


def release() -> None:
    """Give cached blocks of a GPU back before another try."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_bytes(device: torch.device) -> int:
    """The most memory used so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def keep_freed_memory() -> bool:
    """Let glibc keep the large blocks that tensors free, so that each step does not fault them in anew.

    returns: whether it was done; only glibc has these switches
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    largest = (1 << 31) - 1
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_THRESHOLD, 1 << 30)) and bool(libc.mallopt(_TRIM_THRESHOLD, largest))


def device_bytes(device: torch.device) -> int:
    """All memory of a GPU, or of this machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
