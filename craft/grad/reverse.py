"""The gradient by reverse mode."""

from __future__ import annotations

import torch

from craft import policy, tree
from craft.grad.remat import remat
from craft.types import Context, Extras, GradFn, Loss, Metrics, Tensor, Tree

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
    (params, batch, ctx) -> (grads, {"loss", **extras}). Where `ctx.scaling` is kept, the loss goes backwards scaled by it
    and `overflow` says (1 or 0) whether a gradient left the range of its type.
    """

    def grad_fn(params: Tree, batch: Tree, ctx: Context) -> tuple[Tree, Metrics]:
        current = policy.current()
        again = rematerialise or current.rematerialise
        with policy.using(rematerialise=again, wrap=current.wrap or (remat if again else None)):
            if not ctx.scaling:
                return _plain(loss, params, batch, ctx)
            grads, metrics = _plain(_scaled(loss), params, batch, ctx)
        back = 1 / ctx.scaling.scale
        grads = tree.map(lambda g: (g * back).to(g.dtype), grads)
        return grads, {**metrics, "overflow": (~torch.isfinite(tree.norm(grads))).to(back.dtype)}

    return grad_fn


def _scaled(loss: Loss) -> Loss:
    def scaled(params: Tree, batch: Tree, ctx: Context) -> tuple[Tensor, Extras]:
        value, extras = loss(params, batch, ctx)
        return value * ctx.scaling.scale, {**extras, "loss": value}

    return scaled


def _plain(loss: Loss, params: Tree, batch: Tree, ctx: Context) -> tuple[Tree, Metrics]:
    if policy.current().tape and torch._C._functorch.maybe_current_level() is None:  # the tape ends at a vmap
        return _by_tape(loss, params, batch, ctx)
    grads, (value, extras) = torch.func.grad_and_value(loss, has_aux=True)(params, batch, ctx)
    return grads, {"loss": value, **extras}


def _by_tape(loss: Loss, params: Tree, batch: Tree, ctx: Context) -> tuple[Tree, Metrics]:
    leaves, structure = tree.flatten(params)
    with torch.enable_grad():
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        value, extras = loss(tree.unflatten(structure, leaves), batch, ctx)
        grads = torch.autograd.grad(value, leaves, materialize_grads=True)
    return tree.unflatten(structure, grads), {"loss": value.detach(), **tree.map(torch.detach, extras)}
