"""Weight decay. Loshchilov and Hutter 2017, arXiv:1711.05101."""

from __future__ import annotations

from craft import tree
from craft.optim.moments import times
from craft.types import Context, Transform, Tree, Value, resolve

__all__ = ["add_decay"]


def add_decay(decay: Value, mask: Tree | None = None) -> Transform:
    """Pull parameters towards zero: add `decay * param` to the update.

    Placed after the scaling by moments and before the learning rate it is decoupled, as in AdamW; placed first it is
    the L2 penalty of plain SGD.

    Parameters
    ----------
    decay
        Fraction of a parameter that is taken away per update and unit of learning rate.
    mask
        Which leaves decay, a tree of booleans; see `param.decayed`. None is all of them.

    Returns
    -------
    Transform without state.

    References
    ----------
    Loshchilov and Hutter 2017, "Decoupled weight decay regularization", arXiv:1711.05101.
    """

    def update(grads: Tree, state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        number = resolve(decay, ctx)
        if mask is None:
            return tree.map(lambda g, p: g + times(p, number), grads, params), state
        return tree.map(lambda g, p, on: g + times(p, number) if on else g, grads, params, mask), state

    return Transform(lambda params: (), update)
