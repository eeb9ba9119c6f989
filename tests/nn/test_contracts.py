"""Every layer and kernel, run through every contract: one row each."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import pytest
import torch
from torch.nn import functional

from craft import nn, policy, rng
from craft.types import Tensor

K = 3
IDS = torch.tensor([[0, 3, 1, 3], [2, 2, 4, 0]])
PLACES = torch.tensor([[0, 1, 5, 9], [7, 3, 2, 2]])
KEYS = rng.split(rng.key(3), 2)


class Row(NamedTuple):
    """A layer as a function of floating tensors, its independent form, and the shapes of the tensors."""

    ours: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    tolerance: float = 1e-11
    """How far float64 may be from the independent form."""
    plain: Literal["always", "policy", "never"] = "always"
    """Whether it is plain operations: always, under the policy `math`, or never. Those alone have second derivatives."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    rows = []
    for t in range(q.shape[-2]):
        share = (k[..., : t + 1, :] @ q[..., t, :, None] / math.sqrt(q.shape[-1])).softmax(-2)
        rows.append((share * v[..., : t + 1, :]).sum(-2))
    return torch.stack(rows, -2)


DOCUMENTS = (torch.arange(34) >= 13).long().expand(2, 34)


def apart(*qkv: Tensor) -> Tensor:
    return torch.cat([attention(*(x[..., inside, :] for x in qkv)) for inside in (slice(13), slice(13, 34))], -2)


def recurrence(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """Sum the inputs, each times the product of the factors after it: no state is carried."""
    rows = []
    for t in range(a.shape[-2]):
        terms = [start * a[..., : t + 1, :].prod(-2)]
        terms += [b[..., s, :] * a[..., s + 1 : t + 1, :].prod(-2) for s in range(t + 1)]
        rows.append(torch.stack(terms).sum(0))
    return torch.stack(rows, -2)


def dropped(x: Tensor) -> Tensor:
    masks = [[float(rng.uniform(key, x.shape[1:]).flatten()[i]) >= 0.3 for i in range(x[0].numel())] for key in KEYS]
    return x * torch.tensor(masks).reshape(x.shape) / 0.7


def turned(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    angle = PLACES[:, None, :, None] * 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    spin = torch.complex(x[..., :half].double(), x[..., half:].double()) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((spin.real, spin.imag), -1).to(x.dtype)


def attended(time: int) -> tuple[tuple[int, ...], ...]:
    return ((2, 2, time, 4),) * 3


def scanned(time: int) -> tuple[tuple[int, ...], ...]:
    return (2, time, 3), (2, time, 3), (2, 3)


TABLE = {
    "attend": Row(nn.attend, attention, attended(5), plain="policy"),
    "attend bounded": Row(lambda q, k, v: nn.attend(q, k, v, True), attention, attended(32), plain="policy"),
    "attend_documents": Row(lambda q, k, v: nn.attend_documents(q, k, v, DOCUMENTS), apart, attended(34), plain="policy"),
    "attend_fused": Row(nn.attend_fused, attention, attended(5), plain="never"),
    "attend_math": Row(nn.attend_math, attention, attended(5)),
    "attend_pairs": Row(nn.attend_pairs, attention, attended(34), plain="never"),
    "attend_pairs bounded": Row(lambda q, k, v: nn.attend_pairs(q, k, v, True), attention, attended(5), plain="never"),
    "dropout": Row(lambda x: nn.dropout(x, 0.3, KEYS), dropped, ((2, 4, 6),), tolerance=1e-7),
    "embed": Row(lambda w: nn.embed(IDS, w, w.dtype), lambda w: functional.embedding(IDS, w), ((5, 3),)),
    "embed large": Row(lambda w: nn.embed(IDS, w, w.dtype), lambda w: functional.embedding(IDS, w), ((513, 3),)),
    "layer_norm": Row(nn.layer_norm, lambda x: functional.layer_norm(x, x.shape[-1:]), ((2, 4, 3),)),
    "layer_norm scale": Row(nn.layer_norm, lambda x, s: functional.layer_norm(x, s.shape, s), ((2, 4, 3), (3,))),
    "layer_norm bias": Row(nn.layer_norm, lambda x, s, b: functional.layer_norm(x, s.shape, s, b), ((2, 4, 3), (3,), (3,))),
    "linear": Row(nn.linear, lambda x, w: functional.linear(x, w.mT), ((2, 4, 3), (3, 5))),
    "linear bias": Row(nn.linear, lambda x, w, b: functional.linear(x, w.mT, b), ((2, 4, 3), (3, 5), (5,))),
    "rms_norm": Row(nn.rms_norm, lambda x: functional.rms_norm(x, x.shape[-1:], eps=1e-6), ((2, 4, 3),)),
    "rms_norm scale": Row(nn.rms_norm, lambda x, s: functional.rms_norm(x, s.shape, s, eps=1e-6), ((2, 4, 3), (3,))),
    "rotary": Row(lambda x: nn.rotary(x, PLACES), turned, ((2, 3, 4, 6),)),
    "scan": Row(nn.scan, recurrence, scanned(11), plain="policy"),
    "scan_loop": Row(nn.scan_loop, recurrence, scanned(5)),
    "scan_math": Row(nn.scan_math, recurrence, scanned(11)),
}
"""Every row: a function of floating tensors alone."""

rows = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 4e-2}


def inputs(row: Row, dtype: torch.dtype = torch.float64, stacked: int = 0) -> list[Tensor]:
    source = torch.Generator().manual_seed(1)
    lead = (stacked,) if stacked else ()
    return [torch.randn(*lead, *shape, generator=source, dtype=torch.float64).to(dtype) for shape in row.shapes]


def number(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make one number of the output, that depends on all of it."""

    def value(*args: Tensor) -> Tensor:
        out = function(*args)
        return (out * torch.arange(1, out.numel() + 1, device=out.device).reshape(out.shape).sin().to(out.dtype)).sum()

    return value


def slopes(function: Callable[..., Tensor], row: Row) -> Callable[..., Any]:
    return torch.func.grad(number(function), tuple(range(len(row.shapes))))


def close(first: Any, second: Any, tolerance: float) -> None:
    torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        # torch has no batching rule for its fused kernel's derivative on CPUs and says so; craft does not use it there
        warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
        yield


def test_every_public_name_has_a_row() -> None:
    public = {name for name in vars(nn) if not name.startswith("_") and callable(getattr(nn, name))}
    assert public == {name.split()[0] for name in TABLE}


@rows
def test_values_equal_an_independent_form(row: Row) -> None:
    close(row.ours(*inputs(row)), row.reference(*inputs(row)), row.tolerance)


@rows
def test_gradients_equal_the_independent_forms(row: Row) -> None:
    close(slopes(row.ours, row)(*inputs(row)), slopes(row.reference, row)(*inputs(row)), row.tolerance)


@rows
def test_gradients_equal_finite_differences(row: Row) -> None:
    leaves = [leaf.requires_grad_() for leaf in inputs(row)]
    assert torch.autograd.gradcheck(number(row.ours), leaves, fast_mode=True)


@rows
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_types_are_kept_and_rounded_once(row: Row, dtype: torch.dtype) -> None:
    low = inputs(row, dtype)
    out = row.ours(*low)
    assert out.dtype == dtype
    close(out.double(), row.reference(*(leaf.double() for leaf in low)), TOLERANCE[dtype])
    for slope, exact in zip(slopes(row.ours, row)(*low), slopes(row.reference, row)(*(x.double() for x in low)), strict=True):
        assert slope.dtype == dtype
        scale = float(exact.abs().max())
        close(slope.double() / scale, exact / scale, TOLERANCE[dtype])


@rows
def test_inputs_are_never_written(row: Row) -> None:
    leaves = inputs(row)
    before = [leaf.clone() for leaf in leaves]
    slopes(row.ours, row)(*leaves)
    assert all(torch.equal(a, b) for a, b in zip(before, leaves, strict=True))


@rows
def test_vmap_equals_a_loop(row: Row) -> None:
    stacked = inputs(row, stacked=K)
    alone = [row.ours(*leaves) for leaves in zip(*stacked, strict=True)]
    close(torch.func.vmap(row.ours)(*stacked), torch.stack(alone), 1e-11)
    slope = slopes(row.ours, row)
    each = [slope(*leaves) for leaves in zip(*stacked, strict=True)]
    expected = tuple(torch.stack(parts) for parts in zip(*each, strict=True))
    close(torch.func.vmap(slope)(*stacked), expected, 1e-11)
    total = torch.func.grad(lambda *x: torch.func.vmap(number(row.ours))(*x).sum(), tuple(range(len(stacked))))
    close(total(*stacked), expected, 1e-11)


@rows
@pytest.mark.parametrize("form", ["vmap of grad", "grad of vmap"])
def test_compiled_equals_eager(row: Row, form: str) -> None:
    if form == "vmap of grad":
        function = torch.func.vmap(slopes(row.ours, row))
    else:
        function = torch.func.grad(lambda *x: torch.func.vmap(number(row.ours))(*x).sum(), tuple(range(len(row.shapes))))
    stacked = inputs(row, stacked=K)
    close(torch.compile(function, fullgraph=True, backend="aot_eager")(*stacked), function(*stacked), 1e-11)


@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in TABLE.items() if row.plain != "never"])
def test_forward_mode_and_second_derivatives_equal_finite_differences(row: Row) -> None:
    leaves, step = inputs(row), 1e-6
    source = torch.Generator().manual_seed(2)
    tangent = [torch.randn(leaf.shape, generator=source, dtype=leaf.dtype) for leaf in leaves]
    ahead, behind = ([x + sign * step * v for x, v in zip(leaves, tangent, strict=True)] for sign in (1, -1))
    with policy.using(kernels="math" if row.plain == "policy" else "auto"):
        slope = slopes(row.ours, row)
        value, along = torch.func.jvp(row.ours, tuple(leaves), tuple(tangent))[:2]
        close(value, row.reference(*leaves), row.tolerance)
        close(along, (row.reference(*ahead) - row.reference(*behind)) / (2 * step), 1e-7)

        def directional(*x: Tensor) -> Tensor:
            return torch.stack([(g * v).sum() for g, v in zip(slope(*x), tangent, strict=True)]).sum()

        second = torch.func.grad(directional, tuple(range(len(leaves))))(*leaves)
    first = slopes(row.reference, row)
    close(second, tuple((a - b) / (2 * step) for a, b in zip(first(*ahead), first(*behind), strict=True)), 2e-7)
