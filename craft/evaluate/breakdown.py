"""Sums over the targets of a batch, apart by position, by how often a target was trained on, and by the model's confidence.

Local letters: A, amounts (see `AMOUNTS`); N, groups of frequency; M, bins of confidence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from craft.evaluate.judge import judge
from craft.types import Batch, Context, Model, Tensor, Tree

__all__ = ["AMOUNTS", "BINS", "EDGES", "Sums", "bin_by_confidence", "breakdown", "group_by_count"]

AMOUNTS = ("weight", "loss", "accuracy", "confidence", "brier")
"""What is summed, each times the target's weight: one, nats, hits, probability of the likeliest token, Brier score."""

BINS = 15
"""Bins of confidence, as in Guo et al. 2017, arXiv:1706.04599."""

EDGES = tuple(10**power for power in range(13))
"""Where groups of frequency begin, in occurrences; those before the first were never seen."""


class Sums(NamedTuple):
    """Sums of the amounts over the targets of one batch, or of many; float64 where the device has it.

    Attributes
    ----------
    position_TA
        By position in the context; in the document, where a sample holds several.
    seen_NA
        By how often the target is in the training data, see `EDGES`; (0, A) where that is not known.
    confidence_MA
        By confidence, in bins of equal width that hold their upper ends.
    """

    position_TA: Tensor
    seen_NA: Tensor
    confidence_MA: Tensor


def breakdown(model: Model, params: Callable[[Any], Tree]) -> Callable[..., Sums]:
    """Make the function that judges one batch.

    Parameters
    ----------
    model
        A model of sequences.
    params
        State -> the parameters to judge.

    Returns
    -------
    (state, batch, group_V) -> Sums, pure. `group_V` is the group of each token, int64, see `group_by_count`; None: not known.
    Probabilities are those of a log-softmax in float32 at least.
    """

    def measure(state: Any, batch: Batch, group_V: Tensor | None = None) -> Sums:
        lent = Context(hyper=getattr(state, "hyper", {}), buffers=getattr(state, "buffers", ()), layout=batch.layout)
        log_BT, hit_BT, sure_BT, brier_BT = judge(model, params(state), batch.inputs_BT, batch.targets_BT, lent)
        one_BT = torch.ones_like(log_BT)
        amounts_BTA = torch.stack((one_BT, -log_BT, hit_BT.to(log_BT.dtype), sure_BT, brier_BT), -1)
        weight_BT1 = batch.weights_BT[..., None]
        amounts_BTA = torch.where(weight_BT1 > 0, amounts_BTA * weight_BT1, 0.0)  # what is hidden may be infinite
        place_BT = torch.arange(log_BT.shape[-1], device=log_BT.device).expand_as(log_BT)
        place_BT = batch.layout.position_BT if batch.layout else place_BT
        seen_NA = _grouped(amounts_BTA, place_BT, 0)
        if group_V is not None:
            seen_NA = _grouped(amounts_BTA, group_V[batch.targets_BT], len(EDGES) + 1)
        return Sums(
            _grouped(amounts_BTA, place_BT, log_BT.shape[-1]),
            seen_NA,
            _grouped(amounts_BTA, bin_by_confidence(sure_BT), BINS),
        )

    return measure


def _grouped(amounts_BTA: Tensor, group_BT: Tensor, number: int) -> Tensor:
    """Sum by group, (N, A); in float64, where the order in which a device adds does not show."""
    wide = torch.float32 if amounts_BTA.device.type == "mps" else torch.float64  # which that device has not
    zeros_NA = torch.zeros(number, len(AMOUNTS), dtype=wide, device=amounts_BTA.device)
    return zeros_NA.index_add(0, group_BT.flatten(), amounts_BTA.to(wide).flatten(0, 1)) if number else zeros_NA


def bin_by_confidence(sure_BT: Tensor) -> Tensor:
    """Return the bin of each probability, int64 (B, T): the lower one on an edge, the first for what is not a number."""
    return (sure_BT.nan_to_num() * BINS).ceil().clamp(1, BINS).long() - 1


def group_by_count(count_V: Tensor) -> Tensor:
    """Return the group of each token, int64 (V,): how many of `EDGES` its count has reached; 0: never seen."""
    return torch.bucketize(count_V, torch.tensor(EDGES, device=count_V.device), right=True)
