"""Keep freed memory in the process, or give it back: glibc's default gives it back, a quarter of a small step's time."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

__all__ = ["keep_memory", "peak_megabytes", "resident_bytes", "return_memory", "trim"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_memory() -> bool:
    """Tell glibc to keep what is freed; return whether there was a glibc to tell. `MALLOC_*` settings of the user win."""
    return _set({_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: 0x7FFFFFFF, _TOP_PAD: 1 << 26})


def return_memory(least: int = 1 << 17, kept: int = 1 << 17) -> bool:
    """Tell glibc to give back large blocks at once; return whether there was a glibc to tell.

    Where memory counts for more than time: what is kept is scattered, and in eager mode as large as the activations.

    Parameters
    ----------
    least
        Bytes of a block that is given back at once.
    kept
        Bytes that are kept at the end of the heap for smaller ones. Both are glibc's own as they stand.
    """
    return _set({_MMAP_THRESHOLD: least, _TRIM_THRESHOLD: kept, _TOP_PAD: 1 << 17})


def trim() -> None:
    """Give back what is free between the blocks in use, where there is a glibc that can."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another libc
            ctypes.CDLL(None).malloc_trim(0)


def _set(settings: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux") or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another libc
        return False
    return sum(int(mallopt(name, value)) for name, value in settings.items()) == len(settings)


def peak_megabytes(device: torch.device | None = None) -> float:
    """Return the most memory that this process has had so far, in MB (2**20 bytes).

    Parameters
    ----------
    device
        A CUDA device, for what its tensors took of it; any other, or none: the resident size of the process.
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    if sys.platform == "win32":
        return 0.0
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def resident_bytes() -> int:
    """Return the resident size of this process now; where that is not told, its peak."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return int(peak_megabytes() * 2**20)
