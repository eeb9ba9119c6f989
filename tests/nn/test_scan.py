"""The scan equals the plain loop: values and gradients, any length, alone and in packs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from craft import nn, policy
from craft.types import Tensor

Scan = Callable[[Tensor, Tensor, Tensor], Tensor]
both = pytest.mark.parametrize("form", [nn.scan, nn.scan_math])


def draw(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(sum(shape))
    a, b = (torch.randn(shape, generator=source, dtype=torch.float64).to(dtype) for _ in range(2))
    return a.tanh(), b, torch.randn(*shape[:-2], shape[-1], generator=source, dtype=torch.float64).to(dtype)


def pulled(form: Scan, leaves: tuple[Tensor, ...]) -> list[Tensor]:
    leaves = tuple(leaf.detach().requires_grad_() for leaf in leaves)
    out = form(*leaves)
    flow = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, flow)]


def compare(form: Scan, leaves: tuple[Tensor, ...], tolerance: float = 1e-12) -> None:
    for ours, loop in zip(pulled(form, leaves), pulled(nn.scan_loop, leaves), strict=True):
        torch.testing.assert_close(ours, loop, rtol=tolerance, atol=tolerance)


@both
@pytest.mark.parametrize("time", [1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 99, 100, 101, 257])
def test_every_length(form: Scan, time: int) -> None:
    compare(form, draw((2, time, 3)))
    compare(form, draw((2, time, 3), torch.float32), 2e-5)


@both
@example(lead=[], time=1, width=1)
@settings(max_examples=40, deadline=None)
@given(lead=st.lists(st.integers(1, 3), max_size=3), time=st.integers(1, 70), width=st.integers(1, 5))
def test_any_shape(form: Scan, lead: list[int], time: int, width: int) -> None:
    compare(form, draw((*lead, time, width)))


@both
def test_factors_of_zero_and_one(form: Scan) -> None:
    a, b, start = draw((2, 13, 3))
    for factor in (0.0, 1.0, -1.0):
        compare(form, (torch.full_like(a, factor), b, start))
    torch.testing.assert_close(form(torch.ones_like(a), b, start), start[:, None] + b.cumsum(1), rtol=1e-12, atol=1e-12)


@both
def test_a_long_decay_underflows_to_zero_and_not_to_nan(form: Scan) -> None:
    a, b, start = draw((1, 2000, 2), torch.float32)
    for leaf in pulled(form, (a * 0 + 1e-3, b, start)):
        assert bool(leaf.isfinite().all())


@both
def test_pieces_join(form: Scan) -> None:
    a, b, start = draw((2, 23, 3))
    whole, state, parts = form(a, b, start), start, []
    for low, high in ((0, 1), (1, 9), (9, 12), (12, 23)):
        parts.append(form(a[:, low:high], b[:, low:high], state))
        state = parts[-1][:, -1]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-12, atol=1e-12)


def test_the_policy_chooses_the_kernel() -> None:
    """Only the plain form has a forward mode; the other refuses it loudly."""
    leaves = draw((2, 9, 3))
    tangent = tuple(torch.ones_like(leaf) for leaf in leaves)
    with pytest.raises(RuntimeError, match="jvp"):
        torch.func.jvp(nn.scan, leaves, tangent)
    with policy.using(kernels="math"):
        along = torch.func.jvp(nn.scan, leaves, tangent)[1]
    expected = torch.func.jvp(nn.scan_loop, leaves, tangent)[1]
    torch.testing.assert_close(along, expected, rtol=1e-12, atol=1e-12)
