"""The minimal gated recurrent unit, trained by a scan. Feng et al. 2024, arXiv:2410.01201."""

from __future__ import annotations

from typing import Any

import attrs
import torch

from craft import nn
from craft.param import Constant, Param, Spread, scaled
from craft.types import Context, Extras, Model, Tensor, Tree

__all__ = ["Recurrence"]


@attrs.frozen
class Recurrence:
    """h_t = (1 - z_t) h_(t-1) + z_t c_t, where gate z and candidate c depend on the input alone."""

    expand: float = attrs.field(default=1.5, validator=attrs.validators.gt(0))
    """Width of the state as a multiple of the model's width."""

    def build(self, width: int) -> Model:
        """Make the mixer for a stream of `width` features."""
        inner = max(1, round(width * self.expand))
        spec = {
            "gate": Param((width, inner), scaled(width), ("D", "F")),
            "gate_bias": Param((inner,), Spread(-4.0, 0.0), ("F",)),  # memories of 2 to 55 steps at first
            "candidate": Param((width, inner), scaled(width), ("D", "F")),
            "out": Param((inner, width), Constant(), ("F", "D")),
        }

        def states(params: Tree, x_BTD: Tensor, start_BF: Tensor, layout: Any = ()) -> tuple[Tensor, Tensor]:
            joined = torch.cat((params["gate"], params["candidate"]), -1)
            gate, candidate = nn.linear(x_BTD, joined).to(start_BF.dtype).chunk(2, -1)
            gate = gate + params["gate_bias"].to(start_BF.dtype)
            keep = torch.sigmoid(-gate)
            if layout:  # a document begins with nothing to remember
                keep = keep * (layout.position_BT != 0)[..., None]
            state_BTF = nn.scan(keep, torch.sigmoid(gate) * candidate, start_BF)
            return nn.linear(state_BTF.to(x_BTD.dtype), params["out"]), state_BTF[:, -1]

        def empty(batch: int, dtype: torch.dtype, device: torch.device | str) -> Tensor:
            # sums over many steps lose too much in half precision
            return torch.zeros(batch, inner, dtype=torch.float64 if dtype == torch.float64 else torch.float32, device=device)

        def apply(params: Tree, x_BTD: Tensor, ctx: Context) -> tuple[Tensor, Extras]:
            return states(params, x_BTD, empty(x_BTD.shape[0], x_BTD.dtype, x_BTD.device), ctx.layout)[0], {}

        def memory(batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
            return empty(batch, dtype, device)

        def advance(params: Tree, x_BTD: Tensor, memory: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
            return states(params, x_BTD, memory)

        return Model(spec, apply, memory, advance)
