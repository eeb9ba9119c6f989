"""Adam: moments of the gradient. Kingma and Ba 2015, arXiv:1412.6980."""

from __future__ import annotations

from typing import NamedTuple

from craft import tree
from craft.optim.moments import blend, check_complement, correction, start_count
from craft.types import Context, Tensor, Transform, Tree, Value, resolve

__all__ = ["AdamState", "scale_by_adam"]


class AdamState(NamedTuple):
    """Running moments.

    Attributes
    ----------
    step
        Updates made, 0-d int64: a tensor, so that it batches and compiles.
    mean, square
        Running means of the gradient and of its square, not yet corrected for their start at zero.
    """

    step: Tensor
    mean: Tree
    square: Tree


def scale_by_adam(c1: Value = 0.1, c2: Value = 0.05, eps: Value = 1e-8) -> Transform:
    """Divide the gradient's mean by the root of its mean square, both corrected for their start at zero.

    Parameters
    ----------
    c1, c2
        Complements of the two decays, 1 - beta1 and 1 - beta2, in (0, 1].
    eps
        What is added to the root, in units of the gradient.

    Returns
    -------
    Transform with an `AdamState`.

    Raises
    ------
    ValueError
        If a constant complement is not in (0, 1].

    References
    ----------
    Kingma and Ba 2015, "Adam: a method for stochastic optimization", arXiv:1412.6980.
    """
    check_complement("c1", c1)
    check_complement("c2", c2)

    def init(params: Tree) -> AdamState:
        return AdamState(start_count(params), tree.zeros_like(params), tree.zeros_like(params))

    def update(grads: Tree, state: AdamState, params: Tree, ctx: Context) -> tuple[Tree, AdamState]:
        near1, near2 = resolve(c1, ctx), resolve(c2, ctx)
        count = state.step + 1
        mean = blend(state.mean, grads, near1)
        square = blend(state.square, tree.map(lambda g: g * g, grads), near2)
        # Both corrections go into two numbers, so that a leaf costs four operations and not six.
        fix = correction(count, near1)
        gain, offset = fix / correction(count, near2).sqrt(), fix * resolve(eps, ctx)
        updates = tree.map(lambda m, s: (m / (s.sqrt() * gain + offset)).to(m.dtype), mean, square)
        return updates, AdamState(count, mean, square)

    return Transform(init, update)
