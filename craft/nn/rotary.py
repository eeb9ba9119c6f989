"""Rotary position embedding. Su et al. 2021, arXiv:2104.09864."""

from __future__ import annotations

import torch

from craft.types import Tensor

__all__ = ["rotary"]


def rotary(x_BHTE: Tensor, position_BT: Tensor, base: float = 10_000.0) -> Tensor:
    """Turn pairs of features by angles that grow with the position, so that products see differences of positions.

    Parameters
    ----------
    x_BHTE
        Queries or keys; feature i is paired with feature i + E/2.
    position_BT
        int64 positions, shape (B, T) or (1, T).
    base
        Ratio of the slowest to the fastest wave length.
    """
    half = x_BHTE.shape[-1] // 2
    wide = torch.float64 if x_BHTE.dtype == torch.float64 else torch.float32
    wave = base ** (-torch.arange(half, device=x_BHTE.device, dtype=wide) / half)
    angle = position_BT[:, None, :, None].to(wide) * wave
    first, second = x_BHTE.to(wide).chunk(2, -1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((first * cos - second * sin, first * sin + second * cos), -1).to(x_BHTE.dtype)
