"""Root-mean-square normalisation. Zhang and Sennrich 2019, arXiv:1910.07467."""

from __future__ import annotations

import torch

from craft.types import Tensor

__all__ = ["rms_norm"]


def rms_norm(x_BTD: Tensor, scale_D: Tensor | None = None, epsilon: float = 1e-6) -> Tensor:
    """Divide by the root mean square of the last axis, then scale; the sum of squares is kept in float32 at least.

    Parameters
    ----------
    x_BTD
        Any shape; the last axis is normalised.
    scale_D
        Multiplier of each feature; none: 1.
    epsilon
        Added to the mean square.
    """
    wide = x_BTD if x_BTD.dtype == torch.float64 else x_BTD.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return (wide if scale_D is None else wide * scale_D).to(x_BTD.dtype)
