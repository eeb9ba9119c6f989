"""The three forms of attention agree with each other and with torch's, at every cut of time and in every type."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from craft import nn, policy
from craft.nn import attention
from craft.types import Tensor

TIMES = [1, 2, 7, 31, 32, 33, 64, 1022, 1023, 1024]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}


def draw(time: int, dtype: torch.dtype, scale: float = 1.0, width: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(time)
    q, k, v = (torch.randn(1, 2, time, width, generator=source, dtype=torch.float64) for _ in range(3))
    return (scale * q).to(dtype), k.to(dtype), v.to(dtype)


def torchs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def pulled(function: object, leaves: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the output and the gradients of a number made of it."""
    assert callable(function)
    leaves = tuple(leaf.detach().requires_grad_() for leaf in leaves)
    out = function(*leaves)
    flow = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, flow)]


def compare(function: object, leaves: tuple[Tensor, ...]) -> None:
    """Hold values and gradients against torch's in float64, relative to the largest number of each."""
    wide = tuple(leaf.double() for leaf in leaves)
    for ours, exact in zip(pulled(function, leaves), pulled(torchs, wide), strict=True):
        assert ours.dtype == leaves[0].dtype
        limit = TOLERANCE[ours.dtype] * max(1.0, float(exact.abs().max()))
        assert float((ours.double() - exact).abs().max()) <= limit


def test_the_times_cover_every_number_of_chunks() -> None:
    assert {attention._chunks(time) for time in TIMES} == {1, 2, 4}
    assert attention._chunks(33) == attention._chunks(1023) == 1
    assert all(time % attention._chunks(time) == 0 for time in range(1, 2000))


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("form", ["pairs", "pairs bounded", "math"])
def test_every_form_equals_torchs(form: str, dtype: torch.dtype, time: int) -> None:
    def pairs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nn.attend_pairs(q, k, v, bounded=form == "pairs bounded")

    compare(nn.attend_math if form == "math" else pairs, draw(time, dtype))


@settings(max_examples=40, deadline=None)
@given(
    lead=st.lists(st.integers(1, 3), min_size=0, max_size=3),
    time=st.integers(1, 70),
    width=st.integers(1, 6),
    bounded=st.booleans(),
)
def test_any_shape_and_any_leading_axes(lead: list[int], time: int, width: int, bounded: bool) -> None:
    source = torch.Generator().manual_seed(time)
    leaves = tuple(torch.randn(*lead, time, width, generator=source, dtype=torch.float64) for _ in range(3))
    ours = pulled(lambda q, k, v: nn.attend_pairs(q, k, v, bounded), leaves)
    for a, b in zip(ours, pulled(torchs, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("time", [1, 7, 64, 1024])
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_huge_scores_are_safe(dtype: torch.dtype, time: int) -> None:
    """Scores of 1e4 and more: every row sees a single key, and nothing overflows, neither there nor in the masked part."""
    q, k, v = draw(time, dtype, scale=5e4)
    assert float((q.double() @ k.double().mT / 2).abs().max()) > 1e4
    out, *grads = pulled(nn.attend_pairs, (q, k, v))
    plain, *others = pulled(nn.attend_math, (q, k, v))
    assert all(bool(torch.isfinite(x).all()) for x in (out, *grads))
    torch.testing.assert_close(out, plain, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    for ours, other in zip(grads, others, strict=True):
        # a saturated row's gradient is a difference of equal terms as large as the queries: right to their rounding
        limit = TOLERANCE[dtype] * max(float(q.abs().max()), float(other.abs().max()))
        assert float((ours - other).abs().max()) <= limit


@pytest.mark.parametrize("time", [7, 64])
def test_a_huge_score_among_the_masked_ones_is_harmless(time: int) -> None:
    q, k, v = draw(time, torch.float32)
    k = torch.cat((k[..., :-1, :], torch.full_like(k[..., :1, :], 1e30)), -2)
    q = q.abs()
    for ours, other in zip(pulled(nn.attend_pairs, (q, k, v)), pulled(nn.attend_math, (q, k, v)), strict=True):
        assert torch.equal(ours.isfinite(), other.isfinite())
        torch.testing.assert_close(ours[..., :-1, :], other[..., :-1, :], rtol=1e-5, atol=1e-5, equal_nan=True)


def test_bounded_holds_up_to_scores_of_sixty() -> None:
    """All of one row at +60 and at -60: exponentials of the largest and smallest promised scores, in float32."""
    for sign in (1.0, -1.0):
        q = torch.full((1, 1, 64, 4), 30.0**0.5)
        leaves = q, sign * q, torch.randn(1, 1, 64, 4, generator=torch.Generator().manual_seed(0))
        assert float((leaves[0] @ leaves[1].mT / 2).abs().max()) == pytest.approx(60, rel=1e-5)
        compare(lambda q, k, v: nn.attend_pairs(q, k, v, bounded=True), leaves)


def test_nothing_later_is_seen() -> None:
    for time in (7, 64, 1024):
        q, k, v = draw(time, torch.float32)
        cut = time // 2 + 1
        other = [torch.cat((x[..., :cut, :], x[..., cut:, :] * 3 + 1), -2) for x in (q, k, v)]
        for function in (nn.attend_pairs, nn.attend_math, nn.attend_fused):
            assert torch.equal(function(q, k, v)[..., :cut, :], function(*other)[..., :cut, :])


def test_a_mask_says_what_is_seen() -> None:
    q, k, v = draw(6, torch.float64)
    mask_TS = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    mask_TS |= torch.eye(6, dtype=torch.bool)
    with sdpa_kernel(SDPBackend.MATH):
        expected = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask_TS)
    torch.testing.assert_close(nn.attend_math(q, k, v, mask_TS), expected, rtol=1e-12, atol=1e-12)


def test_the_policy_chooses_the_kernel() -> None:
    q, k, v = draw(64, torch.float32)
    assert torch.equal(nn.attend(q, k, v), nn.attend_pairs(q, k, v))
    with policy.using(kernels="math"):
        assert torch.equal(nn.attend(q, k, v), nn.attend_math(q, k, v))


def test_a_pack_of_packs() -> None:
    """vmap of vmap of the gradient, as an ensemble of per-sample gradients needs it."""
    source = torch.Generator().manual_seed(0)
    leaves = [torch.randn(2, 3, 2, 34, 4, generator=source, dtype=torch.float64) for _ in range(3)]

    def grads(function: object) -> tuple[Tensor, ...]:
        assert callable(function)
        slope = torch.func.grad(lambda *x: function(*x).square().sum(), (0, 1, 2))
        return torch.func.vmap(torch.func.vmap(slope))(*leaves)  # type: ignore[no-any-return]

    torch.testing.assert_close(grads(nn.attend_pairs), grads(nn.attend_math), rtol=1e-11, atol=1e-11)


def test_a_second_derivative_by_pairs_is_refused() -> None:
    """Its exponentials are constants to the derivative: without the refusal the number would be wrong."""
    q, k, v = draw(5, torch.float64)

    def curvature(kernel: object) -> Tensor:
        assert callable(kernel)
        first = torch.func.grad(lambda q: kernel(q, k, v).square().sum())
        return torch.func.grad(lambda q: first(q).square().sum())(q)  # type: ignore[no-any-return]

    with pytest.raises(RuntimeError, match=r'policy.using\(kernels="math"\)'):
        curvature(nn.attend)
    with policy.using(kernels="math"):
        assert torch.equal(curvature(nn.attend), curvature(nn.attend_math))
