"""Token embedding.

The gradient of a large table is summed for the rows that were read and rounded once, to the type that the rows had: a table
of 16 bits where activations have 16, like every other weight's gradient, instead of two in 32. Local letter: N, rows read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from craft.nn import whole
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
        if weight_VD.device.type != "cpu":
            return weight_VD[ids_BT].to(dtype)
        kernel: Any = whole.rows if torch.compiler.is_compiling() else rows
        found: Tensor = kernel(weight_VD, ids_BT.flatten(), dtype)
        return found.reshape(*ids_BT.shape, -1)
    one_hot_BTV = ids_BT[..., None] == torch.arange(weight_VD.shape[0], device=ids_BT.device)
    return one_hot_BTV.to(dtype) @ weight_VD.to(dtype)


@whole.kernel
def rows(weight_VD: Tensor, ids_N: Tensor, dtype: torch.dtype) -> Tensor:
    """Return some rows of a table."""
    found_ND: Tensor = _Rows.apply(weight_VD, ids_N, dtype)  # type: ignore[no-untyped-call]
    return found_ND


class _Rows(torch.autograd.Function):
    """A look at rows, linear in the table; its transpose is `_Sum`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight_VD: Tensor, ids_N: Tensor, dtype: torch.dtype) -> Tensor:
        return weight_VD[ids_N].to(dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        weight_VD, ids_N, ctx.dtype = inputs
        ctx.count, ctx.wide = weight_VD.shape[0], weight_VD.dtype
        ctx.save_for_backward(ids_N)
        ctx.save_for_forward(ids_N)

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:
        (ids_N,) = ctx.saved_tensors
        return _Sum.apply(grad_ND, ids_N, ctx.count).to(ctx.wide), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, flow_VD: Tensor, *unused: Any) -> Tensor:
        return rows(flow_VD, ctx.saved_tensors[0], ctx.dtype)


class _Sum(torch.autograd.Function):
    """The sum of what belongs to each row of a table, linear in it; its transpose is `_Rows`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x_ND: Tensor, ids_N: Tensor, count: int) -> Tensor:
        summed_VD: Tensor = _SUM(x_ND, ids_N, count)
        return summed_VD

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x_ND, ids_N, ctx.count = inputs
        ctx.dtype = x_ND.dtype
        ctx.save_for_backward(ids_N)
        ctx.save_for_forward(ids_N)

    @staticmethod
    def backward(ctx: Any, grad_VD: Tensor) -> tuple[Tensor | None, ...]:
        return rows(grad_VD, ctx.saved_tensors[0], ctx.dtype), None, None

    @staticmethod
    def jvp(ctx: Any, flow_ND: Tensor, *unused: Any) -> Tensor:
        summed_VD: Tensor = _Sum.apply(flow_ND, ctx.saved_tensors[0], ctx.count)  # type: ignore[no-untyped-call]
        return summed_VD


def _sum_rows(x_ND: Tensor, ids_N: Tensor, count: int) -> Tensor:
    """Sum in float32 at least, over the rows that occur, in the order of the tokens."""
    seen_S, place_N = torch.unique(ids_N, return_inverse=True)
    wide = torch.float64 if x_ND.dtype == torch.float64 else torch.float32
    sums_SD = x_ND.new_zeros(seen_S.shape[0], x_ND.shape[1], dtype=wide).index_add_(0, place_N, x_ND.to(wide))
    return x_ND.new_zeros(count, x_ND.shape[1]).index_copy_(0, seen_S, sums_SD.to(x_ND.dtype))


def _room(x_ND: Tensor, ids_N: Tensor, count: int) -> Tensor:
    return x_ND.new_empty(count, x_ND.shape[1])


def _each(info: Any, in_dims: Sequence[int | None], x: Tensor, ids: Tensor, count: int) -> tuple[Tensor, int]:
    """Sum all trials at once, as one table of all their rows."""
    trials = info.batch_size
    x_KND, ids_KN = (
        y.expand(trials, *y.shape) if dim is None else y.movedim(dim, 0) for y, dim in zip((x, ids), in_dims[:2], strict=True)
    )
    ids_KN = ids_KN + count * torch.arange(trials, device=ids.device)[:, None]
    return _SUM(x_KND.flatten(0, 1), ids_KN.flatten(), trials * count).reshape(trials, count, -1), 0


# not by torch.library.custom_op, whose first call imports the compiler
_LIBRARY = torch.library.Library("craft", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("sum_rows(Tensor x, Tensor ids, int count) -> Tensor")  # type: ignore[no-untyped-call]
_LIBRARY.impl("sum_rows", _sum_rows, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
torch.library.register_fake("craft::sum_rows", _room, lib=_LIBRARY)
torch.library.register_vmap("craft::sum_rows", _each, lib=_LIBRARY)
_SUM = torch.ops.craft.sum_rows.default
