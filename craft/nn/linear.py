"""Products with weights stored as (in, out), cast to the type of the activations where they are used."""

from __future__ import annotations

from craft.types import Tensor

__all__ = ["linear"]


def linear(x_BTD: Tensor, weight_DN: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """Return `x @ weight (+ bias)`, shape (B, T, N), in the type of `x`."""
    y_BTN = x_BTD @ weight_DN.to(x_BTD.dtype)
    return y_BTN if bias_N is None else y_BTN + bias_N.to(x_BTD.dtype)
