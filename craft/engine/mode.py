"""Which mode a run is compiled in."""

from __future__ import annotations

from typing import Literal

import torch

from craft.engine.device import products
from craft.engine.program import compiler_missing
from craft.errors import UsageError

__all__ = ["Mode", "choose_mode"]

Mode = Literal["none", "block", "step"]

_WAIT = 20.0
"""Seconds that compiling takes with an empty cache on two cores, block by block: at any depth."""
_EAGER, _COMPILED = 0.3, 0.55
"""Share of the machine's product rate that a small model's step reaches, uncompiled and compiled."""


def choose_mode(
    asked: Literal["auto"] | Mode, *, device: torch.device, dtype: torch.dtype, steps: int, flops: float
) -> tuple[Mode, str]:
    """Choose the compile mode and say why.

    Parameters
    ----------
    asked
        `auto`, `none`, `block` or `step`.
    device, dtype
        Where and in what type the products are computed.
    steps, flops
        Updates to come, and floating-point operations of one; 0 where unknown.

    Returns
    -------
    The mode, and a phrase for people.

    Raises
    ------
    UsageError
        If a mode is asked for that needs a compiler, and there is none.
    """
    missing = compiler_missing(device)
    if asked != "auto":
        if missing and asked != "none":
            raise UsageError(f"got --compile {asked}, but {missing}; install one, or take --compile none")
        return asked, "as asked"
    if missing:
        return "none", f"{missing}: running uncompiled, at about a third of the speed"
    if device.type == "mps":
        return "none", "compiling for mps is young"
    if not flops:
        return "none", "the task does not say its flops, so the gain is unknown (--compile step compiles)"
    rate = products(dtype) if device.type == "cpu" else 2e14
    saved = steps * flops / rate * (1 / _EAGER - 1 / _COMPILED)
    if saved > _WAIT:
        # by blocks a step is as fast as compiled whole, here; a GPU wants few, large programs
        mode: Mode = "block" if device.type == "cpu" else "step"
        return mode, f"saves about {saved:.0f} s of the run, costs about {_WAIT:.0f} s the first time"
    return "none", "the run is too short to win back the wait for a compiler"
