"""Not a contestant: the rate of square matrix products, which every share of the machine's peak is measured by."""

from __future__ import annotations

import time

import torch

from tools.bench.beat import Beat
from tools.bench.setup import Setup

__all__ = ["train"]

_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
"""The faster of these is the peak: small ones fit the caches, large ones amortise the start."""


def train(setup: Setup, beat: Beat) -> None:
    """Multiply for ever; the `loss` of each turn is the best rate in it, in GFLOP/s."""
    torch.set_num_threads(setup.threads)
    dtype = torch.bfloat16 if setup.bf16 else torch.float32
    sizes = setup.options.get("sizes") or _SIZES[setup.device]
    made = {size: torch.randn(size, size, device=setup.device).to(dtype) for size in sizes}
    beat.start(parameters=0)
    while True:
        rate = max(_rate(made[size], size, setup.device) for size in sizes)
        beat(lambda rate=rate: rate)  # type: ignore[misc]


def _rate(square: torch.Tensor, size: int, device: str) -> float:
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        torch.mm(square, square)
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2.0 * size**3 / (time.perf_counter() - began) / 1e9)
    return best
