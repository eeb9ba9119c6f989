"""Gradients of each sample alone, with their norms, clipped one by one if asked. Abadi et al. 2016, arXiv:1607.00133."""

from __future__ import annotations

import torch

from craft import policy, tree
from craft.grad.scale import refuse_judged
from craft.types import Context, GradFn, Metrics, Tensor, Tree, Value, resolve

__all__ = ["sample"]


def sample(grad_fn: GradFn, limit: Value | None = None) -> GradFn:
    """Take the gradient of each sample alone, clip its norm, and average them by their weights.

    Parameters
    ----------
    grad_fn
        Gradient of a mean; called under vmap, once for each sample, with a batch of one.
    limit
        Largest norm that a sample's gradient keeps; none: nothing is clipped, and the result equals the whole batch's gradient.

    Returns
    -------
    A GradFn; its metrics have `sample_norm_mean` and `sample_norm_max` too.
    """

    def wrapped(params: Tree, batch: Tree, ctx: Context) -> tuple[Tree, Metrics]:
        single = tree.map(lambda leaf: leaf[:, None], batch)
        with policy.using(tape=False, wrap=None):  # neither the tape nor a compiled block goes under vmap
            grads, metrics = torch.func.vmap(grad_fn, in_dims=(None, 0, None))(params, single, ctx)
        refuse_judged(metrics, "sample")
        weight_B = metrics.pop("weight", None)
        weight_B = torch.ones_like(metrics["loss"]) if weight_B is None else weight_B
        norm_B = torch.func.vmap(tree.norm)(grads)
        share_B = weight_B / weight_B.sum().clamp(min=1e-9)
        factor_B = share_B if limit is None else share_B * (resolve(limit, ctx) / norm_B.clamp(min=1e-12)).clamp(max=1)
        mean = {name: tree.map(lambda x: _weigh(share_B, x), value) for name, value in metrics.items()}
        mean.update(weight=weight_B.sum(), sample_norm_mean=norm_B.mean(), sample_norm_max=norm_B.amax())
        return tree.map(lambda g: _weigh(factor_B, g), grads), mean

    return wrapped


def _weigh(factor_B: Tensor, x_BN: Tensor) -> Tensor:
    mean_N: Tensor = torch.tensordot(factor_B.to(x_BN.dtype), x_BN, dims=1)
    return mean_N
