"""Devices, threads and the types they are fast with."""

from __future__ import annotations

import time

import torch

from craft.errors import UsageError

__all__ = ["PRECISIONS", "compute_type", "products", "resolve_device", "set_threads"]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Types of activations by the name that people give them."""

_WORTH = 1.5
"""How much faster bf16 products must be than fp32 ones to be used on a CPU."""


def resolve_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:1` or `mps` into a device that is there.

    Raises
    ------
    UsageError
        If the name is unknown or the machine has no such device.
    """
    found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    found += ["mps"] if torch.backends.mps.is_available() else []
    if name == "auto":
        return torch.device(found[-1] if found[-1] == "mps" else ("cuda:0" if "cuda:0" in found else "cpu"))
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in found:
        raise UsageError(f"got device {name!r}; this machine has {', '.join(found)}: name one of them, or auto")
    return torch.device(wanted)


def set_threads(number: int) -> int:
    """Use `number` CPU threads (0: torch's own choice, one a core) and return how many are in use."""
    if number:
        torch.set_num_threads(number)
    return torch.get_num_threads()


def compute_type(name: str, device: torch.device) -> torch.dtype:
    """Choose the type of the activations.

    `auto` takes bf16 where its products are clearly faster here: on GPUs that have it, on CPUs when it is measured so.
    """
    if name != "auto":
        return PRECISIONS[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and products(torch.bfloat16) > _WORTH * products(torch.float32):
        return torch.bfloat16
    return torch.float32


def products(dtype: torch.dtype, size: int = 512, tries: int = 6) -> float:
    """Measure the best rate of matrix products on the CPU, in floating-point operations per second."""
    left, right = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    best = float("inf")
    for _ in range(tries):
        start = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
