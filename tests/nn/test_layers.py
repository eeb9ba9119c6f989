"""What the small layers promise beyond the contracts."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from craft import nn, rng
from craft.nn.embed import ONE_HOT_LIMIT


@settings(max_examples=15, deadline=None)
@given(rate=st.floats(0.0, 0.95), seed=st.integers(0, 2**62))
def test_dropout_drops_its_share_and_scales_the_rest(rate: float, seed: int) -> None:
    samples, each = 4, 5000
    out = nn.dropout(torch.ones(samples, each), rate, rng.split(rng.key(seed), samples))
    kept = out != 0
    assert torch.allclose(out[kept], torch.tensor(1 / (1 - rate)))
    share = float((~kept).double().mean())
    assert abs(share - rate) <= 5 * math.sqrt(rate * (1 - rate) / (samples * each)) + 1e-9


def test_dropout_without_a_key_is_the_identity() -> None:
    x_BD = torch.randn(2, 5)
    assert nn.dropout(x_BD, 0.9, None) is x_BD


def test_dropout_of_rate_zero_changes_nothing() -> None:
    x_BTD = torch.randn(2, 3, 5)
    assert torch.equal(nn.dropout(x_BTD, 0.0, rng.split(rng.key(0), 2)), x_BTD)
    assert torch.equal(nn.dropout(x_BTD, torch.tensor(0.0), rng.split(rng.key(0), 2)), x_BTD)


def test_a_rate_that_is_a_tensor_draws_the_same_masks() -> None:
    x_BTD, keys = torch.randn(2, 30, 5), rng.split(rng.key(0), 2)
    assert torch.equal(nn.dropout(x_BTD, 0.25, keys), nn.dropout(x_BTD, torch.tensor(0.25), keys))
    packed = torch.func.vmap(lambda rate: nn.dropout(x_BTD, rate, keys))(torch.tensor([0.25, 0.5]))
    assert torch.equal(packed[0], nn.dropout(x_BTD, 0.25, keys))
    assert torch.equal(packed[1], nn.dropout(x_BTD, 0.5, keys))


def test_a_samples_mask_is_its_own_keys() -> None:
    keys = rng.split(rng.key(5), 4)
    x_BTD = torch.ones(4, 6, 8)
    whole = nn.dropout(x_BTD, 0.5, keys)
    assert len({tuple(row.flatten().tolist()) for row in whole}) == 4
    for order in ([3, 1], [2], [0, 1, 2, 3]):
        assert torch.equal(nn.dropout(x_BTD[order], 0.5, keys[order]), whole[order])


@pytest.mark.parametrize("vocabulary", [5, ONE_HOT_LIMIT, ONE_HOT_LIMIT + 1])
def test_embedding_casts_the_rows_to_the_type_of_the_activations(vocabulary: int) -> None:
    table_VD = torch.randn(vocabulary, 3)
    ids_BT = torch.tensor([[0, vocabulary - 1], [2, 2]])
    out = nn.embed(ids_BT, table_VD, torch.bfloat16)
    assert torch.equal(out, table_VD[ids_BT].bfloat16())


def test_weights_are_cast_to_the_type_of_the_activations() -> None:
    x_BTD, w_DN, b_N = torch.randn(2, 3, 4).bfloat16(), torch.randn(4, 5), torch.randn(5)
    assert torch.equal(nn.linear(x_BTD, w_DN, b_N), x_BTD @ w_DN.bfloat16() + b_N.bfloat16())


def test_the_norm_is_one_and_huge_numbers_do_not_overflow() -> None:
    x_BTD = torch.randn(2, 3, 64)
    for scale in (1.0, 1e4):
        y = nn.rms_norm((x_BTD * scale).bfloat16()).float()
        assert torch.allclose(y.square().mean(-1), torch.ones(2, 3), atol=1e-2)
    assert torch.equal(nn.rms_norm(torch.zeros(1, 4)), torch.zeros(1, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_norm_is_summed_wide_and_rounded_once(dtype: torch.dtype) -> None:
    """Squares of 1e4 overflow in float16; rounding more than once would be off by more than half a unit."""
    x_BD = (1e4 * torch.randn(8, 64, generator=torch.Generator().manual_seed(0))).to(dtype)
    exact = torch.nn.functional.rms_norm(x_BD.double(), (64,), eps=1e-6)
    error = (nn.rms_norm(x_BD).double() - exact).abs() / exact.abs()
    assert float(error.max()) <= 0.501 * torch.finfo(dtype).eps


def test_a_norm_of_zeros_has_a_finite_gradient() -> None:
    x_D = torch.zeros(4, requires_grad=True)
    nn.rms_norm(x_D).sum().backward()
    assert x_D.grad is not None
    assert bool(x_D.grad.isfinite().all())


def test_rotated_products_see_differences_of_positions() -> None:
    source = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 5, 8, generator=source, dtype=torch.float64) for _ in range(2))
    place = torch.tensor([[0, 3, 4, 9, 20]])

    def scores(shift: int) -> torch.Tensor:
        return nn.rotary(q, place + shift) @ nn.rotary(k, place + shift).mT

    torch.testing.assert_close(scores(0), scores(1000), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(nn.rotary(q, place).norm(dim=-1), q.norm(dim=-1))
    assert torch.equal(nn.rotary(q, place)[:, :, 0], q[:, :, 0])


def test_angles_are_computed_wide() -> None:
    """In bfloat16 a position of 1001 would be 1000."""
    x = torch.ones(1, 1, 2, 4, dtype=torch.bfloat16)
    turned = nn.rotary(x, torch.tensor([[1000, 1001]]))
    assert not torch.equal(turned[:, :, 0], turned[:, :, 1])
