"""Dynamic loss scaling: what keeps small gradients alive in fp16. Micikevicius et al. 2018, arXiv:1710.03740.

Numbers of fp16 end at 65504 above and at 6e-8 below. The loss is multiplied by a scale before it goes backwards and the
gradients are divided by it where they are float32 again (`grad.reverse` does both); the scale is a power of two, so that
neither rounds. It lives in the state, and is judged and changed inside the graph.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from craft import tree
from craft.types import Context, Extras, GradFn, Metrics, Tensor, Tree

__all__ = ["Scaling", "scale", "start_scaling"]

START, FLOOR, CEILING = 2.0**16, 2.0**-14, 2.0**24
"""The first scale, the last one before a run is given up, and the largest."""


class Scaling(NamedTuple):
    """What a state keeps for it.

    Attributes
    ----------
    scale
        What the loss is multiplied by, 0-d float32.
    good
        Updates since the scale was last changed, 0-d int64.
    skipped
        Updates left out so far, 0-d int64.
    """

    scale: Tensor
    good: Tensor
    skipped: Tensor


def start_scaling(like: Tensor) -> Scaling:
    """Make the scaling before the first update, of the shape (0-d, or one for each trial) and on the device of `like`."""
    count = torch.zeros(like.shape, dtype=torch.int64, device=like.device)
    return Scaling(torch.full(like.shape, START, dtype=torch.float32, device=like.device), count, count.clone())


def scale(grad_fn: GradFn, patience: int = 2000) -> GradFn:
    """Leave out an update whose scaled gradient overflowed, halve the scale after it, double it after many good ones.

    Outermost: around `accumulate`, `sample`, `sharpness`, which call the scaled gradient several times. `step.build` puts it
    there; only a step of one's own, or another patience, needs it by hand. Without `ctx.scaling` it does nothing.

    Parameters
    ----------
    grad_fn
        Made of `grad.reverse`, which scales its loss by `ctx.scaling`.
    patience
        Good updates after which the scale is doubled.

    Returns
    -------
    A GradFn whose metrics have `scaling`, the next one; `skip`, whether the update is to be left out; and for people
    `loss_scale` and `overflow`. A loss that is not finite, or a gradient that overflows at the smallest scale, is not
    skipped: it stops the run as without scaling.

    Raises
    ------
    ValueError
        If `patience` is not positive.

    References
    ----------
    Micikevicius et al. 2018, "Mixed precision training", arXiv:1710.03740.
    """
    if patience < 1:
        raise ValueError(f"got patience={patience}; expected at least 1 update")

    def wrapped(params: Tree, batch: Tree, ctx: Context) -> tuple[Tree, Metrics]:
        grads, metrics = grad_fn(params, batch, ctx)
        if not ctx.scaling or "scaling" in metrics:  # nothing is scaled, or it has been judged
            return grads, metrics
        old: Scaling = ctx.scaling
        # where it arose, because a function around it may hide it (the sign of nan is 0), and where it arrived
        over = ~torch.isfinite(tree.norm(grads)) | (metrics.get("overflow", torch.zeros_like(metrics["loss"])) > 0)
        skip = over & torch.isfinite(metrics["loss"]) & (old.scale > FLOOR)
        full = ~over & (old.good + 1 >= patience)
        size = torch.where(over, 0.5 * old.scale, torch.where(full, 2.0 * old.scale, old.scale)).clamp(FLOOR, CEILING)
        next_ = Scaling(size, torch.where(over | full, 0, old.good + 1), old.skipped + skip)
        told: Extras = {name: value if name == "buffers" else _shown(skip, value) for name, value in metrics.items()}
        told.update(overflow=over.to(old.scale.dtype), loss_scale=old.scale, skip=skip, scaling=next_)
        return grads, told

    return wrapped


def _shown(skip: Tensor, value: Tensor) -> Tensor:
    """Report 0 for what overflowed with a gradient that is left out: a mean over many steps would drown in it."""
    return torch.where(skip & ~torch.isfinite(value), torch.zeros_like(value), value)


def refuse_judged(metrics: Metrics, name: str) -> None:
    """Refuse to call `scale` more than once in an update: the verdicts would be averaged, or lost."""
    if "skip" in metrics:
        raise ValueError(f"got grad.{name} around a gradient that says `skip`; put it outermost: grad.scale(grad.{name}(...))")
