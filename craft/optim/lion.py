"""Lion: the sign of a momentum. Chen et al. 2023, arXiv:2302.06675."""

from __future__ import annotations

from typing import NamedTuple

import torch

from craft import tree
from craft.optim.moments import blend, check_complement
from craft.optim.quantised import check_bits, dequantise_tree, quantise_tree, zeros
from craft.types import Context, Transform, Tree, Value, resolve

__all__ = ["LionState", "scale_by_lion"]


class LionState(NamedTuple):
    """Running mean.

    Attributes
    ----------
    mean
        Running mean of the gradient, a tree like the parameters; with 8 bits its large leaves are `Quantised`.
    """

    mean: Tree


def scale_by_lion(c1: Value = 0.1, c2: Value = 0.01, bits: int = 32) -> Transform:
    """Take the sign of the gradient blended into its running mean.

    Parameters
    ----------
    c1
        Weight of the new gradient in the update, 1 - beta1, in (0, 1].
    c2
        Weight of the new gradient in the running mean, 1 - beta2, in (0, 1].
    bits
        Bits of a number in the running mean: 32, or 8 in blocks of 256 with a scale each; see `quantised`.

    Returns
    -------
    Transform with a `LionState`; updates are -1, 0 or 1.

    Raises
    ------
    ValueError
        If a constant complement is not in (0, 1], or the bits are neither 32 nor 8.

    References
    ----------
    Chen et al. 2023, "Symbolic discovery of optimization algorithms", arXiv:2302.06675.
    """
    check_complement("c1", c1)
    check_complement("c2", c2)
    check_bits(bits)

    def init(params: Tree) -> LionState:
        return LionState(zeros(params, bits))

    def update(grads: Tree, state: LionState, params: Tree, ctx: Context) -> tuple[Tree, LionState]:
        mean = dequantise_tree(state.mean, grads)
        step = tree.map(torch.sign, blend(mean, grads, resolve(c1, ctx)))
        return step, LionState(quantise_tree(blend(mean, grads, resolve(c2, ctx)), bits))

    return Transform(init, update)
