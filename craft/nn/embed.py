"""Token embedding."""

from __future__ import annotations

import torch

from craft.types import Tensor

__all__ = ["ONE_HOT_LIMIT", "embed"]

ONE_HOT_LIMIT = 512
"""Largest vocabulary that is embedded by a product: its gradient is a product too, not a scatter, which is slow on CPUs."""


def embed(ids_BT: Tensor, weight_VD: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the rows of `weight` that the ids name, shape (B, T, D), in `dtype`.

    Parameters
    ----------
    ids_BT
        int64 in [0, V); not checked here: data and tokenizers check their ids once.
    weight_VD
        The table.
    dtype
        Type of the activations from here on.
    """
    if weight_VD.shape[0] > ONE_HOT_LIMIT:
        return weight_VD[ids_BT].to(dtype)
    one_hot_BTV = ids_BT[..., None] == torch.arange(weight_VD.shape[0], device=ids_BT.device)
    return one_hot_BTV.to(dtype) @ weight_VD.to(dtype)
