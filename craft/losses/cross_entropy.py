"""Cross-entropy of logits, in plain operations."""

from __future__ import annotations

import torch

from craft.types import Tensor

__all__ = ["COMPARE_LIMIT", "cross_entropy", "pick"]

COMPARE_LIMIT = 1024
"""Largest vocabulary whose target is picked by comparing and summing: no gather, whose derivative is a scatter."""


def cross_entropy(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Return minus the log-probability of each target, nats, shape (B, T), float32 at least."""
    wide = logits_BTV if logits_BTV.dtype == torch.float64 else logits_BTV.float()
    return wide.logsumexp(-1) - pick(wide, targets_BT)


def pick(values_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Return the value of each target, shape (B, T)."""
    if values_BTV.shape[-1] > COMPARE_LIMIT:
        return values_BTV.gather(-1, targets_BT[..., None])[..., 0]
    hit = targets_BT[..., None] == torch.arange(values_BTV.shape[-1], device=values_BTV.device)
    return torch.where(hit, values_BTV, 0.0).sum(-1)
