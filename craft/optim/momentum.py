"""Momentum: a decaying sum of gradients. Polyak 1964, doi:10.1016/0041-5553(64)90137-5."""

from __future__ import annotations

from typing import NamedTuple

import torch

from craft import tree
from craft.optim.moments import check_complement, start_count, times
from craft.optim.quantised import check_bits, dequantise_tree, quantise_tree, zeros
from craft.types import Context, Tensor, Transform, Tree, Value, resolve

__all__ = ["TraceState", "trace"]


class TraceState(NamedTuple):
    """Decaying sum.

    Attributes
    ----------
    step
        Updates made, 0-d int64.
    total
        The sum, a tree like the parameters; with 8 bits its large leaves are `Quantised`.
    """

    step: Tensor
    total: Tree


def trace(c: Value = 0.1, *, nesterov: bool = False, dampening: float = 0.0, bits: int = 32) -> Transform:
    """Replace the gradient by the sum of past gradients, each weighted by (1 - c) ** age.

    Parameters
    ----------
    c
        Complement of the momentum, 1 - momentum, in (0, 1].
    nesterov
        Whether to look one step ahead: gradient plus momentum times the new sum.
    dampening
        Fraction of every gradient but the first that is left out of the sum.
    bits
        Bits of a number in the sum: 32, or 8 in blocks of 256 with a scale each; see `quantised`.

    Returns
    -------
    Transform with a `TraceState`; equals the momentum of `torch.optim.SGD`.

    Raises
    ------
    ValueError
        If a constant complement is not in (0, 1], `nesterov` is asked for with dampening, or the bits are
        neither 32 nor 8.

    References
    ----------
    Polyak 1964, "Some methods of speeding up the convergence of iteration methods",
    doi:10.1016/0041-5553(64)90137-5; Sutskever et al. 2013, "On the importance of initialization and momentum in deep
    learning", ICML.
    """
    check_complement("c", c)
    check_bits(bits)
    if nesterov and dampening != 0.0:
        raise ValueError(f"got nesterov with dampening={dampening}; expected no dampening: set it to 0")

    def init(params: Tree) -> TraceState:
        return TraceState(start_count(params), zeros(params, bits))

    def update(grads: Tree, state: TraceState, params: Tree, ctx: Context) -> tuple[Tree, TraceState]:
        momentum = 1.0 - resolve(c, ctx)
        fresh = grads
        if dampening != 0.0:
            part = torch.where(state.step == 0, 1.0, 1.0 - dampening)
            fresh = tree.map(lambda g: times(g, part), grads)
        total = tree.map(lambda t, g: times(t, momentum) + g, dequantise_tree(state.total, fresh), fresh)
        step = tree.map(lambda g, t: g + times(t, momentum), grads, total) if nesterov else total
        return step, TraceState(state.step + 1, quantise_tree(total, bits))

    return Transform(init, update)
