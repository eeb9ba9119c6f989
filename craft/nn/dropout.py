"""Dropout with masks drawn by key, so that they do not depend on how a batch is cut. Srivastava et al. 2014 (JMLR 15)."""

from __future__ import annotations

from craft import rng
from craft.types import Tensor

__all__ = ["dropout"]


def dropout(x_BTD: Tensor, rate: float | Tensor, key_B2: Tensor | None) -> Tensor:
    """Set elements to zero with probability `rate` and scale the others by 1 / (1 - rate).

    Parameters
    ----------
    x_BTD
        Activations; each sample's mask is drawn from its own key.
    rate
        Probability in [0, 1), a number or a 0-d tensor.
    key_B2
        One key a sample; none (evaluation): nothing is dropped.
    """
    if key_B2 is None:
        return x_BTD
    keep = rng.uniform(key_B2, x_BTD.shape[1:]) >= rate
    return x_BTD * (keep / (1 - rate)).to(x_BTD.dtype)
