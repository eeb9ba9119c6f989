"""Causal self-attention, with rotary positions or without.

Grouped heads after Ainslie et al. 2023, arXiv:2305.13245; normalised queries and keys after Henry et al. 2020,
arXiv:2010.04245.
"""

from __future__ import annotations

from typing import NamedTuple

import attrs
import torch

from craft import nn
from craft.param import Constant, Param, scaled
from craft.types import Context, Extras, Model, Tensor, Tree

__all__ = ["Attention", "KeyValues"]


_NAMES = ("query", "key", "value")
_FEW = 32
"""Tokens below which three products are faster than one of a matrix that has to be put together."""


class KeyValues(NamedTuple):
    """Keys and values of the positions that were seen, with room for `capacity` of them in each row."""

    key_BSGE: Tensor
    value_BSGE: Tensor
    position_B: Tensor


@attrs.frozen
class Attention:
    """Every position looks at itself and the ones before it."""

    heads: int = attrs.field(default=4, validator=attrs.validators.ge(1))
    """Query heads."""
    groups: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    """Key/value heads, a divisor of `heads`; 0: as many as heads."""
    rotary: bool = True
    """Whether queries and keys are turned by their position; without it order is told only by the mask."""
    normed: bool = True
    """Whether queries and keys are normalised (QK norm)."""
    bias: bool = False
    """Whether a learned number is added to every feature of the queries, keys, values and the output."""

    def build(self, width: int) -> Model:
        """Make the mixer for a stream of `width` features.

        Raises
        ------
        ValueError
            If the heads do not divide the width into even parts, or the groups do not divide the heads.
        """
        groups = self.groups or self.heads
        if width % self.heads or (width // self.heads) % 2:
            raise ValueError(f"got width {width} for {self.heads} attention heads; expected an even number of features a head")
        if self.heads % groups:
            raise ValueError(f"got {groups} groups for {self.heads} attention heads; expected a divisor of the heads")
        return _build(self, width, groups, width // self.heads)


def _build(config: Attention, width: int, groups: int, each: int) -> Model:
    shared = groups * each
    spec = {
        "query": Param((width, width), scaled(width), ("D", "H")),
        "key": Param((width, shared), scaled(width), ("D", "G")),
        "value": Param((width, shared), scaled(width), ("D", "G")),
        "out": Param((width, width), Constant(), ("H", "D")),
    }
    if config.bias:
        spec |= {f"{name}_bias": Param(one.shape[1:], Constant(), one.axes[1:]) for name, one in spec.items()}

    def together(params: Tree, x_BTD: Tensor) -> tuple[Tensor, ...]:
        """Take one product for three: faster where there are many tokens."""

        def join(end: str) -> Tensor:
            return torch.cat([params[name + end] for name in _NAMES], -1)

        joined = nn.linear(x_BTD, join(""), join("_bias") if config.bias else None)
        return torch.split(joined, [width, shared, shared], -1)

    def separate(params: Tree, x_BTD: Tensor) -> tuple[Tensor, ...]:
        """Leave the matrices where they are: for a few tokens reading them is all the work."""
        return tuple(nn.linear(x_BTD, params[name], params.get(f"{name}_bias")) for name in _NAMES)

    def project(params: Tree, x_BTD: Tensor, position_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = separate(params, x_BTD) if x_BTD.shape[:-1].numel() < _FEW else together(params, x_BTD)
        q, k, v = (x.reshape(*x.shape[:-1], -1, each).transpose(-2, -3) for x in (q, k, v))
        if config.normed:
            q, k = nn.rms_norm(q), nn.rms_norm(k)
        if config.rotary:
            q, k = nn.rotary(q, position_BT), nn.rotary(k, position_BT)
        return q, k, v

    def spread(x_BGTE: Tensor) -> Tensor:
        return x_BGTE if groups == config.heads else x_BGTE.repeat_interleave(config.heads // groups, -3)

    def merge(params: Tree, y_BHTE: Tensor) -> Tensor:
        return nn.linear(y_BHTE.transpose(-2, -3).flatten(-2), params["out"], params.get("out_bias"))

    bounded = config.normed and each <= 1024

    def apply(params: Tree, x_BTD: Tensor, ctx: Context) -> tuple[Tensor, Extras]:
        if ctx.layout:
            q, k, v = project(params, x_BTD, ctx.layout.position_BT)
            return merge(params, nn.attend_documents(q, spread(k), spread(v), ctx.layout.document_BT, bounded)), {}
        q, k, v = project(params, x_BTD, torch.arange(x_BTD.shape[1], device=x_BTD.device)[None])
        return merge(params, nn.attend(q, spread(k), spread(v), bounded)), {}

    def memory(batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> KeyValues:
        room = torch.zeros(batch, capacity, groups, each, dtype=dtype, device=device)
        return KeyValues(room, room.clone(), torch.zeros(batch, dtype=torch.int64, device=device))

    def advance(params: Tree, x_BTD: Tensor, memory: KeyValues, ctx: Context) -> tuple[Tensor, KeyValues]:
        place_BT = memory.position_B[:, None] + torch.arange(x_BTD.shape[1], device=x_BTD.device)
        row_B1 = torch.arange(x_BTD.shape[0], device=x_BTD.device)[:, None]

        def enter(room_BSGE: Tensor, new_BGTE: Tensor) -> Tensor:
            # slots lead, so that a compiler may write into the room itself instead of a copy of all of it
            return room_BSGE.index_put((row_B1, place_BT), new_BGTE.transpose(1, 2).to(room_BSGE.dtype))

        q, k, v = project(params, x_BTD, place_BT)
        key, value = enter(memory.key_BSGE, k), enter(memory.value_BSGE, v)
        seen = place_BT[:, None, :, None] >= torch.arange(key.shape[1], device=x_BTD.device)
        past = [spread(room.transpose(1, 2)).to(q.dtype) for room in (key, value)]
        y = nn.attend_math(q, past[0], past[1], seen)
        return merge(params, y), KeyValues(key, value, memory.position_B + x_BTD.shape[1])

    return Model(spec, apply, memory, advance)
