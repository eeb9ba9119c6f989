"""What a model says of each target: its probability, whether it is the likeliest token, and how sure the model is of that one.

Local letters: L, targets of all samples in a row; N, those of one chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from craft.losses import CHUNK_BYTES
from craft.losses.cross_entropy import pick
from craft.types import Context, Model, Tensor, Tree

__all__ = ["Judged", "judge"]


class Judged(NamedTuple):
    """A value for each target, (B, T).

    Attributes
    ----------
    log_BT
        Log-probability of the target, nats; float32, or float64 where the model is.
    hit_BT
        Whether the target got the highest logit, bool.
    confidence_BT
        Probability of the likeliest token.
    brier_BT
        Squared distance of the probabilities from those that are one at the target and else zero, in [0, 2]. Brier 1950,
        doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
    """

    log_BT: Tensor
    hit_BT: Tensor
    confidence_BT: Tensor
    brier_BT: Tensor


def judge(model: Model, params: Tree, inputs_BT: Tensor, targets_BT: Tensor, ctx: Context) -> Judged:
    """Judge every target, a chunk at a time where the model tells its features: all logits are then never held at once.

    Parameters
    ----------
    model, params
        A model of sequences and its tensors.
    inputs_BT, targets_BT
        Token ids, int64, and the id that follows each.
    ctx
        What the model is lent.
    """
    if model.features is None or model.head is None:
        logits_BTV, _ = model.apply(params, inputs_BT, ctx)
        rows, weight_DV = logits_BTV.flatten(0, 1), None
        wide = logits_BTV.shape[-1]
    else:
        features_BTD, _ = model.features(params, inputs_BT, ctx)
        rows, weight_DV = features_BTD.flatten(0, 1), model.head(params).to(features_BTD.dtype)
        wide = weight_DV.shape[-1]
    length = max(1, CHUNK_BYTES // (4 * wide))
    pieces = zip(torch.split(rows, length), torch.split(targets_BT.flatten(), length), strict=True)
    parts = [_judge(row if weight_DV is None else row @ weight_DV, target_N) for row, target_N in pieces]
    return Judged(*(torch.cat(values).reshape(targets_BT.shape) for values in zip(*parts, strict=True)))


def _judge(logits_NV: Tensor, target_N: Tensor) -> Judged:
    logits_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    logs_NV = logits_NV.log_softmax(-1)
    log_N = pick(logs_NV, target_N)
    square_N = logs_NV.exp().square().sum(-1)
    return Judged(
        log_N, logits_NV.argmax(-1) == target_N, logs_NV.amax(-1).exp(), (square_N - 2 * log_N.exp() + 1).clamp(min=0.0)
    )
