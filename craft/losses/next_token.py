"""The loss of models of sequences: predict each next token."""

from __future__ import annotations

from craft import rng
from craft.losses.cross_entropy import cross_entropy
from craft.losses.linear_cross_entropy import linear_cross_entropy
from craft.types import Batch, Context, Extras, Loss, Model, Tensor, Tree

__all__ = ["next_token"]


def next_token(model: Model) -> Loss:
    """Make the loss of predicting each next token: the weighted mean of the cross-entropy, in nats.

    Parameters
    ----------
    model
        A model of sequences. Where it tells its `features` and `head`, the logits are never held all at once; else its
        `apply` returns them, (B, T, V).

    Returns
    -------
    A Loss over `types.Batch`. `extras["weight"]` is the number of tokens that count, `extras["accuracy"]` the share of
    targets that got the highest logit.
    """

    def judge(params: Tree, batch: Batch, share_BT: Tensor, ctx: Context) -> tuple[Tensor, Tensor, Extras]:
        if model.features is None or model.head is None:
            logits_BTV, extras = model.apply(params, batch.inputs_BT, ctx)
            mean = (cross_entropy(logits_BTV, batch.targets_BT) * share_BT).sum()
            return mean, logits_BTV.detach().argmax(-1) == batch.targets_BT, extras
        features_BTD, extras = model.features(params, batch.inputs_BT, ctx)
        return *linear_cross_entropy(features_BTD, model.head(params), batch.targets_BT, share_BT), extras

    def loss(params: Tree, batch: Batch, ctx: Context) -> tuple[Tensor, Extras]:
        if ctx.key is not None:
            ctx = ctx._replace(key=rng.fold_in(ctx.key, batch.sample_B))
        if batch.layout:
            ctx = ctx._replace(layout=batch.layout)
        weight = batch.weights_BT.sum()
        share_BT = batch.weights_BT / weight.clamp(min=1e-9)
        mean, hits_BT, extras = judge(params, batch, share_BT, ctx)
        return mean, {**extras, "weight": weight, "accuracy": (hits_BT * share_BT).sum()}

    return loss
