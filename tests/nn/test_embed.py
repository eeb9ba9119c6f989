"""The embedding equals a look at the rows, in value and in every derivative, and under every transform."""

from __future__ import annotations

import pytest
import torch

from craft import nn
from craft.nn.embed import ONE_HOT_LIMIT

COUNT, WIDTH = ONE_HOT_LIMIT + 88, 5


@pytest.fixture
def table() -> torch.Tensor:
    return torch.randn(COUNT, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def ids() -> torch.Tensor:
    """Some rows many times, most never, in any order."""
    return torch.randint(0, COUNT, (3, 40), generator=torch.Generator().manual_seed(2)) // 7 * 7


def weigh(found: torch.Tensor) -> torch.Tensor:
    return (found.float().sin() * torch.linspace(-1, 1, WIDTH)).sum()


def embedded(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return weigh(nn.embed(ids, table, torch.float32))


def looked_up(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return weigh(table[ids])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rows(table: torch.Tensor, ids: torch.Tensor, dtype: torch.dtype) -> None:
    assert torch.equal(nn.embed(ids, table.to(torch.float64), dtype), table.to(torch.float64)[ids].to(dtype))


def test_gradient(table: torch.Tensor, ids: torch.Tensor) -> None:
    torch.testing.assert_close(torch.func.grad(embedded)(table, ids), torch.func.grad(looked_up)(table, ids))


def test_gradient_of_sixteen_bits_is_rounded_once(table: torch.Tensor, ids: torch.Tensor) -> None:
    flow = torch.randn(*ids.shape, WIDTH, generator=torch.Generator().manual_seed(3)).bfloat16()
    found = torch.func.vjp(lambda x: nn.embed(ids, x, torch.bfloat16), table)[1](flow)[0]
    exact = torch.zeros(COUNT, WIDTH).index_add_(0, ids.flatten(), flow.flatten(0, 1).float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact.bfloat16().float(), rtol=2**-8, atol=0)  # the sum's own order may turn one bit


def test_other_derivatives(table: torch.Tensor, ids: torch.Tensor) -> None:
    way = torch.randn(COUNT, WIDTH, generator=torch.Generator().manual_seed(4))
    found = [
        (
            torch.func.jvp(lambda x, f=f: f(x, ids), (table,), (way,))[1],
            torch.func.jvp(lambda x, f=f: torch.func.grad(f)(x, ids), (table,), (way,))[1],
            torch.func.grad(lambda x, f=f: (torch.func.grad(f)(x, ids) * way).sum())(table),
        )
        for f in (embedded, looked_up)
    ]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dims", [(0, None), (None, 0), (0, 0)])
def test_packs(table: torch.Tensor, ids: torch.Tensor, dims: tuple[int | None, int | None]) -> None:
    tables = torch.stack([table, -table, table * 2]) if dims[0] == 0 else table
    many = torch.stack([ids, ids.flip(0), (ids + 1) % COUNT]) if dims[1] == 0 else ids
    found = torch.vmap(torch.func.grad(embedded), dims)(tables, many)
    for trial in range(3):
        one = torch.func.grad(looked_up)(tables[trial] if dims[0] == 0 else table, many[trial] if dims[1] == 0 else ids)
        torch.testing.assert_close(found[trial], one)


def test_compiled(table: torch.Tensor, ids: torch.Tensor) -> None:
    found = torch.compile(torch.vmap(torch.func.grad(embedded), (0, None)), fullgraph=True)(table[None], ids)
    torch.testing.assert_close(found[0], torch.func.grad(looked_up)(table, ids))
