"""Gradients of a large batch from small ones, weighted by tokens, so that they equal the large batch's."""

from __future__ import annotations

import torch

from craft import tree
from craft.grad.scale import refuse_judged
from craft.types import Context, GradFn, Metrics, Tensor, Tree

__all__ = ["accumulate"]


def accumulate(grad_fn: GradFn, parts: int) -> GradFn:
    """Cut the batch into parts along its first axis and average their gradients and metrics by `metrics["weight"]`.

    Parameters
    ----------
    grad_fn
        Returns the gradient of a mean, and in `metrics["weight"]` how much that mean stands for.
    parts
        Number of parts; memory for activations falls by this factor.

    Returns
    -------
    A GradFn equal to `grad_fn` on the whole batch, up to rounding. `weight` is the sum of the parts'.

    Raises
    ------
    ValueError
        If `parts` is not positive or, when called, does not divide the batch, or if the metrics have no `weight`.
    """
    if parts < 1:
        raise ValueError(f"got parts={parts}; expected at least 1")

    def wrapped(params: Tree, batch: Tree, ctx: Context) -> tuple[Tree, Metrics]:
        total: tuple[Tree, Metrics] | None = None
        for part in _cut(batch, parts):
            grads, metrics = grad_fn(params, part, ctx)
            refuse_judged(metrics, "accumulate")
            if "weight" not in metrics:
                raise ValueError(f"got metrics {sorted(metrics)}; accumulate needs `weight`: return it in the loss's extras")
            weight = metrics["weight"]
            weighted = tree.map(
                lambda x, weight=weight: x * weight, (grads, {k: v for k, v in metrics.items() if k != "weight"})
            )
            weighted[1]["weight"] = weight
            total = weighted if total is None else tree.map(torch.add, total, weighted)
        assert total is not None
        return _mean(*total)

    return wrapped


def _cut(batch: Tree, parts: int) -> list[Tree]:
    leaves, structure = tree.flatten(batch)
    size = leaves[0].shape[0]
    if size % parts:
        raise ValueError(f"got a batch of {size} samples in {parts} parts; expected a multiple of {parts}")
    return [tree.unflatten(structure, piece) for piece in zip(*(leaf.chunk(parts) for leaf in leaves), strict=True)]


def _mean(grads: Tree, metrics: Metrics) -> tuple[Tree, Metrics]:
    share: Tensor = 1 / metrics["weight"].clamp(min=1e-9)
    means = {name: value if name == "weight" else tree.map(lambda x: x * share, value) for name, value in metrics.items()}
    return tree.map(lambda g: g * share, grads), means
