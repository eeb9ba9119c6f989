"""Linear recurrence h_t = a_t h_(t-1) + b_t over time, in about 2 sqrt(T) steps instead of T.

Time is cut into about sqrt(T) chunks: all chunks advance together, then their ends are chained (Blelloch 1990, "Prefix sums
and their applications"). The derivative is the same recurrence run backwards.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

from craft import policy
from craft.nn import whole
from craft.types import Tensor

__all__ = ["scan", "scan_loop", "scan_math"]


def scan(a_BTD: Tensor, b_BTD: Tensor, start_BD: Tensor) -> Tensor:
    """Return all states of h_t = a_t h_(t-1) + b_t.

    Parameters
    ----------
    a_BTD
        Factors.
    b_BTD
        Inputs.
    start_BD
        State before the first step.

    Returns
    -------
    States, shape (B, T, D).
    """
    if policy.current().kernels == "math":
        return scan_math(a_BTD, b_BTD, start_BD)
    kernel = whole.recur if torch.compiler.is_compiling() else recur
    states: Tensor = kernel(a_BTD, b_BTD, start_BD)
    return states


def scan_loop(a_BTD: Tensor, b_BTD: Tensor, start_BD: Tensor) -> Tensor:
    """Do the same one step at a time: what the others are measured against."""
    state, states = start_BD, []
    for a_BD, b_BD in zip(a_BTD.unbind(-2), b_BTD.unbind(-2), strict=True):
        state = a_BD * state + b_BD
        states.append(state)
    return torch.stack(states, -2)


def scan_math(a_BTD: Tensor, b_BTD: Tensor, start_BD: Tensor) -> Tensor:
    """Do the same in chunks, in plain operations that every transform can differentiate."""
    *lead, time, width = a_BTD.shape
    length = max(1, math.isqrt(time))
    spare = -time % length
    cut = (*lead, (time + spare) // length, length, width)
    a = functional.pad(a_BTD, (0, 0, 0, spare), value=1.0).reshape(cut)
    b = functional.pad(b_BTD, (0, 0, 0, spare)).reshape(cut)
    inner, factor = [b[..., 0, :]], [a[..., 0, :]]
    for i in range(1, length):
        inner.append(a[..., i, :] * inner[-1] + b[..., i, :])
        factor.append(a[..., i, :] * factor[-1])
    carry = [start_BD]
    for i in range(cut[-3] - 1):
        carry.append(factor[-1][..., i, :] * carry[-1] + inner[-1][..., i, :])
    states = torch.stack(inner, -2) + torch.stack(factor, -2) * torch.stack(carry, -2)[..., None, :]
    return states.reshape(*lead, time + spare, width)[..., :time, :]


@whole.kernel
def recur(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """Run the recurrence; its derivative is written by hand."""
    states: Tensor = _Scan.apply(a, b, start)  # type: ignore[no-untyped-call]
    return states


class _Scan(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
        return scan_math(a, b, start)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], inputs[2], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        a, start, states = ctx.saved_tensors
        later = torch.cat((a[..., 1:, :], torch.zeros_like(a[..., :1, :])), -2)
        flow = scan_math(later.flip(-2), grad.flip(-2), torch.zeros_like(start)).flip(-2)
        before = torch.cat((start[..., None, :], states[..., :-1, :]), -2)
        return flow * before, flow, flow[..., 0, :] * a[..., 0, :]
