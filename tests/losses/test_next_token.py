"""The cross-entropy equals torch's, and hidden targets do not count."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from craft import losses
from craft.types import Batch, Context, Model, Tensor

LIMIT = losses.COMPARE_LIMIT
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-5}


def draw(vocabulary: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(vocabulary)
    logits = 3 * torch.randn(2, 5, vocabulary, generator=source, dtype=torch.float64)
    return logits.to(dtype), torch.randint(vocabulary, (2, 5), generator=source)


def torchs(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").reshape(targets.shape)


@pytest.mark.parametrize("vocabulary", [1, 2, 65, LIMIT, LIMIT + 1, 3000])
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_it_equals_torchs(vocabulary: int, dtype: torch.dtype) -> None:
    logits, targets = draw(vocabulary, dtype)
    wide = logits.double() if dtype == torch.float64 else logits.float()
    ours = losses.cross_entropy(logits, targets)
    assert ours.dtype == wide.dtype
    torch.testing.assert_close(ours, torchs(wide, targets), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    flow = torch.linspace(-1, 2, 10, dtype=wide.dtype).reshape(2, 5)
    grads = [torch.func.grad(lambda x, f=f: (f(x, targets) * flow).sum())(wide) for f in (losses.cross_entropy, torchs)]
    torch.testing.assert_close(*grads, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("vocabulary", [7, LIMIT + 1])
def test_huge_logits_are_safe(vocabulary: int) -> None:
    logits, targets = draw(vocabulary, torch.float32)
    nats = losses.cross_entropy(logits * 1e4, targets)
    torch.testing.assert_close(nats, torchs(logits * 1e4, targets))


@pytest.mark.parametrize("vocabulary", [7, LIMIT + 1])
def test_vmapped_and_compiled(vocabulary: int) -> None:
    torch._dynamo.reset()
    pairs = [draw(vocabulary), (draw(vocabulary)[0].flip(0), draw(vocabulary)[1])]
    logits, targets = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    slope = torch.func.vmap(torch.func.grad(lambda x, t: losses.cross_entropy(x, t).sum()))
    expected = torch.stack([torch.func.grad(lambda x, t=t: torchs(x, t).sum())(x) for x, t in pairs])
    torch.testing.assert_close(slope(logits, targets), expected, rtol=1e-11, atol=1e-11)
    compiled = torch.compile(slope, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, targets), expected, rtol=1e-11, atol=1e-11)


def table_model() -> Model:
    """A model whose logits are the rows of its one parameter."""

    def apply(params: Tensor, ids: Tensor, ctx: Context) -> tuple[Tensor, dict[str, Any]]:
        return params[ids], {"seen": ids.double().mean()}

    return Model(None, apply, lambda *_: (), lambda p, ids, memory, ctx: (p[ids], ()))


LOSS = losses.next_token(table_model())
PARAMS, _ = draw(5)
PARAMS = PARAMS[0]


def batch(weights: Any) -> Batch:
    return Batch(
        torch.tensor([[0, 1, 2], [3, 4, 0]]), torch.tensor([[1, 2, 3], [4, 0, 1]]), torch.tensor(weights), torch.arange(2)
    )


def test_the_mean_is_weighted_by_the_targets_that_count() -> None:
    weights = [[1.0, 0.0, 0.5], [0.0, 2.0, 0.0]]
    value, extras = LOSS(PARAMS, batch(weights), Context())
    nats = torchs(PARAMS[batch(weights).inputs_BT], batch(weights).targets_BT)
    torch.testing.assert_close(value, (nats * torch.tensor(weights)).sum() / 3.5, rtol=1e-6, atol=1e-6)
    assert float(extras["weight"]) == 3.5
    hits = (PARAMS[batch(weights).inputs_BT].argmax(-1) == batch(weights).targets_BT) * torch.tensor(weights)
    assert float(extras["accuracy"]) == pytest.approx(float(hits.sum()) / 3.5)
    assert "seen" in extras


def test_a_hidden_target_does_not_matter() -> None:
    shown = batch([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    other = shown._replace(targets_BT=torch.where(shown.weights_BT == 0, 4 - shown.targets_BT, shown.targets_BT))
    assert not torch.equal(shown.targets_BT, other.targets_BT)
    slope = torch.func.grad_and_value(lambda p, b: LOSS(p, b, Context())[0])
    for a, b in zip(slope(PARAMS, shown), slope(PARAMS, other), strict=True):
        assert torch.equal(a, b)


def test_a_batch_without_targets_is_zero_and_not_nan() -> None:
    (grads, (value, extras)) = torch.func.grad_and_value(lambda p: LOSS(p, batch([[0.0] * 3] * 2), Context()), has_aux=True)(
        PARAMS
    )
    assert float(value) == float(extras["weight"]) == float(extras["accuracy"]) == 0
    assert torch.equal(grads, torch.zeros_like(PARAMS))


def test_an_undecided_model_loses_the_logarithm_of_its_tokens() -> None:
    value, _ = LOSS(torch.zeros(5, 5), batch([[1.0] * 3] * 2), Context())
    assert float(value) == pytest.approx(math.log(5), rel=1e-6)


def test_tokens_that_are_certain_lose_nothing() -> None:
    table = torch.full((5, 5), -1e4) + 2e4 * torch.eye(5).roll(1, 1)  # every id is followed by the next
    value, extras = LOSS(table, batch([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]), Context())
    assert float(value) == 0
    assert float(extras["accuracy"]) == pytest.approx(1.0)
