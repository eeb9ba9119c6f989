"""The gradient by reverse mode."""

from __future__ import annotations

import torch

from craft import policy, tree
from craft.grad.remat import remat
from craft.types import Context, GradFn, Loss, Metrics, Tree

__all__ = ["reverse"]


def reverse(loss: Loss, rematerialise: bool = False) -> GradFn:
    """Make the gradient of a loss.

    Parameters
    ----------
    loss
        (params, batch, ctx) -> (mean, extras).
    rematerialise
        Compute each block of the model again in the backward pass instead of keeping its activations: less memory, about
        a third more work, the same gradients.

    Returns
    -------
    (params, batch, ctx) -> (grads, {"loss", **extras}).
    """

    def grad_fn(params: Tree, batch: Tree, ctx: Context) -> tuple[Tree, Metrics]:
        with policy.using(wrap=remat if rematerialise else policy.current().wrap):
            if policy.current().tape and torch._C._functorch.maybe_current_level() is None:  # the tape ends at a vmap
                return _by_tape(loss, params, batch, ctx)
            grads, (value, extras) = torch.func.grad_and_value(loss, has_aux=True)(params, batch, ctx)
        return grads, {"loss": value, **extras}

    return grad_fn


def _by_tape(loss: Loss, params: Tree, batch: Tree, ctx: Context) -> tuple[Tree, Metrics]:
    leaves, structure = tree.flatten(params)
    with torch.enable_grad():
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        value, extras = loss(tree.unflatten(structure, leaves), batch, ctx)
        grads = torch.autograd.grad(value, leaves, materialize_grads=True)
    return tree.unflatten(structure, grads), {"loss": value.detach(), **tree.map(torch.detach, extras)}
