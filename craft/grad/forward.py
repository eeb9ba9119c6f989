"""The forward gradient: an unbiased estimate without a backward pass. Baydin et al. 2022, arXiv:2202.08587."""

from __future__ import annotations

from typing import Any

import torch

from craft import policy, rng, tree
from craft.types import Context, GradFn, Loss, Metrics, Tensor, Tree

__all__ = ["forward"]

_PLACE = 0x666F7277  # keeps these draws apart from the model's own


def forward(loss: Loss, directions: int = 1) -> GradFn:
    """Estimate the gradient by derivatives along random directions: the mean of (slope along v) v, v normal.

    Parameters
    ----------
    loss
        (params, batch, ctx) -> (mean, extras).
    directions
        Number of directions; the variance falls with it.

    Returns
    -------
    A GradFn that needs a key in its context.

    Raises
    ------
    ValueError
        If `directions` is not positive or, when called, the context has no key.
    """
    if directions < 1:
        raise ValueError(f"got directions={directions}; expected at least 1")

    def grad_fn(params: Tree, batch: Tree, ctx: Context) -> tuple[Tree, Metrics]:
        if ctx.key is None:
            raise ValueError("got a context without a key; the forward gradient draws its directions from one")
        total, metrics = None, {}
        for number in range(directions):
            tangent = _direction(rng.fold_in(rng.fold_in(ctx.key, _PLACE), number), params)
            with policy.using(kernels="math", tape=False, wrap=None):  # fused kernels have no forward mode
                found: Any = torch.func.jvp(lambda p: loss(p, batch, ctx), (params,), (tangent,), has_aux=True)
            value, slope, extras = found
            metrics = {"loss": value, **extras}
            part = tree.map(lambda v, slope=slope: v * (slope / directions), tangent)
            total = part if total is None else tree.map(torch.add, total, part)
        return total, metrics

    return grad_fn


def _direction(key_2: Tensor, params: Tree) -> Tree:
    leaves, structure = tree.flatten(params)
    drawn = [rng.normal(rng.fold_in(key_2, i), leaf.shape).to(leaf.dtype) for i, leaf in enumerate(leaves)]
    return tree.unflatten(structure, drawn)
