"""Sharpness-aware minimisation. Foret et al. 2021, arXiv:2010.01412."""

from __future__ import annotations

import torch

from craft import tree
from craft.grad.scale import refuse_judged
from craft.types import Context, GradFn, Metrics, Tree, Value, resolve

__all__ = ["sharpness"]


def sharpness(grad_fn: GradFn, radius: Value = 0.05) -> GradFn:
    """Take the gradient at the worst nearby point.

    Parameters
    ----------
    grad_fn
        The gradient, called twice with the same key: both see the same random masks.
    radius
        Distance to that point.

    Returns
    -------
    A GradFn; its `loss` is the loss at the worst point, `loss_here` the one at the parameters.
    """

    def wrapped(params: Tree, batch: Tree, ctx: Context) -> tuple[Tree, Metrics]:
        grads, here = grad_fn(params, batch, ctx)
        refuse_judged(here, "sharpness")
        length = tree.norm(grads)
        if ctx.scaling:  # an overflow has no direction: stay here, and let the second gradient tell of it
            known = torch.isfinite(length)
            grads, length = tree.map(lambda x: torch.where(known, x, 0.0), (grads, length))
        size = resolve(radius, ctx) / length.clamp(min=1e-12)
        worst, metrics = grad_fn(tree.map(lambda p, g: p + size * g, params, grads), batch, ctx)
        return worst, {**metrics, "loss_here": here["loss"]}

    return wrapped
