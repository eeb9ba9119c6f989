"""Losses: (params, batch, ctx) -> (mean, extras)."""

from __future__ import annotations

import torch

from craft import rng
from craft.types import Batch, Context, Extras, Loss, Model, Tensor, Tree

__all__ = ["COMPARE_LIMIT", "cross_entropy", "next_token"]

COMPARE_LIMIT = 1024
"""Largest vocabulary whose target is picked by comparing and summing: no gather, whose derivative is a scatter."""


def cross_entropy(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Return minus the log-probability of each target, nats, shape (B, T), float32 at least."""
    wide = logits_BTV if logits_BTV.dtype == torch.float64 else logits_BTV.float()
    if wide.shape[-1] > COMPARE_LIMIT:
        picked = wide.gather(-1, targets_BT[..., None])[..., 0]
    else:
        hit = targets_BT[..., None] == torch.arange(wide.shape[-1], device=wide.device)
        picked = torch.where(hit, wide, 0.0).sum(-1)
    return wide.logsumexp(-1) - picked


def next_token(model: Model) -> Loss:
    """Make the loss of predicting each next token: the weighted mean of the cross-entropy, in nats.

    Parameters
    ----------
    model
        A model of sequences; its `apply` returns logits (B, T, V).

    Returns
    -------
    A Loss over `types.Batch`. `extras["weight"]` is the number of tokens that count, `extras["accuracy"]` the share of
    targets that got the highest logit.
    """

    def loss(params: Tree, batch: Batch, ctx: Context) -> tuple[Tensor, Extras]:
        if ctx.key is not None:
            ctx = ctx._replace(key=rng.fold_in(ctx.key, batch.sample_B))
        logits_BTV, extras = model.apply(params, batch.inputs_BT, ctx)
        weight = batch.weights_BT.sum()
        nats_BT = cross_entropy(logits_BTV, batch.targets_BT)
        share_BT = batch.weights_BT / weight.clamp(min=1e-9)
        hits_BT = logits_BTV.detach().argmax(-1) == batch.targets_BT
        return (nats_BT * share_BT).sum(), {**extras, "weight": weight, "accuracy": (hits_BT * share_BT).sum()}

    return loss
