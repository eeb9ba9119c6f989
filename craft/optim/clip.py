"""Clipping by the global norm. Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063."""

from __future__ import annotations

from craft import tree
from craft.optim.moments import times
from craft.types import Context, Transform, Tree, Value, resolve

__all__ = ["clip_by_norm"]


def clip_by_norm(limit: Value) -> Transform:
    """Shrink the gradient, direction kept, to a global norm of at most `limit`.

    Parameters
    ----------
    limit
        Largest Euclidean norm over all leaves together.

    Returns
    -------
    Transform without state; equals `torch.nn.utils.clip_grad_norm_`.

    Raises
    ------
    ValueError
        If a constant limit is not positive.

    References
    ----------
    Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural networks", arXiv:1211.5063.
    """
    if not callable(limit) and not limit > 0.0:
        raise ValueError(f"got limit={limit}; expected a positive norm: leave clip_by_norm out to clip nothing")

    def update(grads: Tree, state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        factor = (resolve(limit, ctx) / (tree.norm(grads) + 1e-6)).clamp(max=1.0)
        return tree.map(lambda g: times(g, factor), grads), state

    return Transform(lambda params: (), update)
