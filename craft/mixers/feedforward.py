"""Position-wise feed-forward.

GELU and its approximation by tanh after Hendrycks and Gimpel 2016, arXiv:1606.08415; squared ReLU after So et al. 2021,
arXiv:2109.08668; SwiGLU after Shazeer 2020, arXiv:2002.05202.
"""

from __future__ import annotations

from typing import Literal

import attrs
import torch
from torch.nn import functional

from craft import nn
from craft.config import choice
from craft.param import Constant, Param, scaled
from craft.types import Context, Extras, Model, Tensor, Tree

__all__ = ["FeedForward"]


@attrs.frozen
class FeedForward:
    """Two products with a nonlinearity between them, at each position alone."""

    expand: float = attrs.field(default=4.0, validator=attrs.validators.gt(0))
    """Inner width as a multiple of the model's width."""
    activation: Literal["gelu", "gelu_tanh", "relu2", "swiglu"] = choice("relu2", "gelu", "gelu_tanh", "relu2", "swiglu")
    """Nonlinearity; swiglu has a third matrix, gelu_tanh is GPT-2's approximation of gelu."""
    bias: bool = False
    """Whether a learned number is added to every feature after each product."""

    def build(self, width: int) -> Model:
        """Make the mixer for a stream of `width` features."""
        inner = max(1, round(width * self.expand))
        names = ("up", "gate") if self.activation == "swiglu" else ("up",)
        spec = {name: Param((width, inner), scaled(width), ("D", "F")) for name in names}
        spec["out"] = Param((inner, width), Constant(), ("F", "D"))
        if self.bias:
            spec |= {f"{name}_bias": Param(one.shape[1:], Constant(), one.axes[1:]) for name, one in spec.items()}

        def product(params: Tree, name: str, x_BTD: Tensor) -> Tensor:
            return nn.linear(x_BTD, params[name], params.get(f"{name}_bias"))

        def apply(params: Tree, x_BTD: Tensor, ctx: Context) -> tuple[Tensor, Extras]:
            up_BTF = product(params, "up", x_BTD)
            if self.activation == "swiglu":
                up_BTF = up_BTF * functional.silu(product(params, "gate", x_BTD))
            elif self.activation == "relu2":
                up_BTF = functional.relu(up_BTF).square()
            else:
                up_BTF = functional.gelu(up_BTF, approximate="tanh" if self.activation == "gelu_tanh" else "none")
            return product(params, "out", up_BTF), {}

        def memory(batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tree:
            return ()

        def advance(params: Tree, x_BTD: Tensor, memory: Tree, ctx: Context) -> tuple[Tensor, Tree]:
            return apply(params, x_BTD, ctx)[0], memory

        return Model(spec, apply, memory, advance)
