"""Normalisation of features: by root mean square (Zhang and Sennrich 2019, arXiv:1910.07467), and LayerNorm.

LayerNorm after Ba et al. 2016, arXiv:1607.06450.
"""

from __future__ import annotations

import torch

from craft.types import Tensor

__all__ = ["layer_norm", "rms_norm"]


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


def layer_norm(x_BTD: Tensor, scale_D: Tensor | None = None, bias_D: Tensor | None = None, epsilon: float = 1e-5) -> Tensor:
    """Subtract the mean of the last axis and divide by its standard deviation, both float32 at least; scale and shift.

    Parameters
    ----------
    x_BTD
        Any shape; the last axis is normalised.
    scale_D
        Multiplier of each feature; none: 1.
    bias_D
        Added to each feature; none: 0.
    epsilon
        Added to the variance.
    """
    wide = x_BTD if x_BTD.dtype == torch.float64 else x_BTD.float()
    wide = wide - wide.mean(-1, keepdim=True)
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    wide = wide if scale_D is None else wide * scale_D
    return (wide if bias_D is None else wide + bias_D).to(x_BTD.dtype)
