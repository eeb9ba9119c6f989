"""Adam: moments of the gradient. Kingma and Ba 2015, arXiv:1412.6980."""

from __future__ import annotations

from typing import NamedTuple

from craft import tree
from craft.optim.moments import blend, check_complement, correction, start_count
from craft.optim.quantised import check_bits, dequantise_tree, quantise_tree, zeros
from craft.types import Context, Tensor, Transform, Tree, Value, resolve

__all__ = ["AdamState", "scale_by_adam"]


class AdamState(NamedTuple):
    """Running moments.

    Attributes
    ----------
    step
        Updates made, 0-d int64: a tensor, so that it batches and compiles.
    mean, square
        Running means of the gradient and of its square, not yet corrected for their start at zero; with 8 bits their large
        leaves are `Quantised`.
    """

    step: Tensor
    mean: Tree
    square: Tree


def scale_by_adam(c1: Value = 0.1, c2: Value = 0.05, eps: Value = 1e-8, bits: int = 32) -> Transform:
    """Divide the gradient's mean by the root of its mean square, both corrected for their start at zero.

    Parameters
    ----------
    c1, c2
        Complements of the two decays, 1 - beta1 and 1 - beta2, in (0, 1].
    eps
        What is added to the root, in units of the gradient.
    bits
        Bits of a number in the moments: 32, or 8 in blocks of 256 with a scale each; see `quantised`.

    Returns
    -------
    Transform with an `AdamState`.

    Raises
    ------
    ValueError
        If a constant complement is not in (0, 1], or the bits are neither 32 nor 8.

    References
    ----------
    Kingma and Ba 2015, "Adam: a method for stochastic optimization", arXiv:1412.6980.
    """
    check_complement("c1", c1)
    check_complement("c2", c2)
    check_bits(bits)

    def held(step: Tensor, mean: Tree, square: Tree) -> AdamState:
        return AdamState(step, quantise_tree(mean, bits), quantise_tree(square, bits, signed=False))

    def init(params: Tree) -> AdamState:
        return AdamState(start_count(params), zeros(params, bits), zeros(params, bits, signed=False))

    def update(grads: Tree, state: AdamState, params: Tree, ctx: Context) -> tuple[Tree, AdamState]:
        near1, near2 = resolve(c1, ctx), resolve(c2, ctx)
        count = state.step + 1
        mean = blend(dequantise_tree(state.mean, grads), grads, near1)
        square = blend(dequantise_tree(state.square, grads), tree.map(lambda g: g * g, grads), near2)
        # Both corrections go into two numbers, so that a leaf costs four operations and not six.
        fix = correction(count, near1)
        gain, offset = fix / correction(count, near2).sqrt(), fix * resolve(eps, ctx)
        updates = tree.map(lambda m, s: (m / (s.sqrt() * gain + offset)).to(m.dtype), mean, square)
        return updates, held(count, mean, square)

    return Transform(init, update)
