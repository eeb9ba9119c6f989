"""The gradient by reverse mode, by torch.func and by the tape."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from craft import grad, policy, tree
from craft.types import Context, Extras, Tensor, Tree


def loss(params: Tree, batch: Tree, ctx: Context) -> tuple[Tensor, Extras]:
    value = (params["a"] * batch).sin().sum() * params["b"][0]
    return value, {"weight": batch.sum(), "buffers": {"mean": params["a"].detach().mean()}}


PARAMS: Tree = {"a": torch.tensor([0.3, -1.0, 2.0]), "b": [torch.tensor(2.0), torch.tensor([1.0, 5.0])]}
BATCH = torch.tensor([1.0, 0.5, -2.0])


@pytest.mark.parametrize("tape", [False, True])
@pytest.mark.parametrize("rematerialise", [False, True])
def test_the_gradient_by_hand(tape: bool, rematerialise: bool) -> None:
    with torch.no_grad(), policy.using(tape=tape):
        grads, metrics = grad.reverse(loss, rematerialise)(PARAMS, BATCH, Context())
    torch.testing.assert_close(grads["a"], 2 * BATCH * (PARAMS["a"] * BATCH).cos())
    torch.testing.assert_close(grads["b"][0], (PARAMS["a"] * BATCH).sin().sum())
    assert torch.equal(grads["b"][1], torch.zeros(2))  # what the loss does not read
    torch.testing.assert_close(metrics["loss"], 2 * (PARAMS["a"] * BATCH).sin().sum())
    assert sorted(metrics) == ["buffers", "loss", "weight"]
    assert not any(leaf.requires_grad for leaf in tree.leaves((grads, metrics, PARAMS)))


def test_the_tape_is_left_alone_under_vmap() -> None:
    grad_fn = grad.reverse(lambda p, b, c: (p.square().sum(), {}))
    with policy.using(tape=True):
        grads, _ = torch.func.vmap(lambda p: grad_fn(p, (), Context()))(torch.ones(2, 3))
    assert torch.equal(grads, torch.full((2, 3), 2.0))


def test_a_region_keeps_what_the_engine_wrapped_it_in() -> None:
    calls = []

    def wrap(function: object) -> object:
        calls.append(function)
        return function

    piece = policy.region(lambda x: x.square())
    with policy.using(wrap=wrap):
        grads, _ = grad.reverse(lambda p, b, c: (piece(p).sum(), {}))(torch.ones(3), (), Context())
        assert len(calls) == 1
        asked: list[bool] = []

        def loss(p: Any, b: Any, c: Any) -> Any:
            asked.append(policy.current().rematerialise)
            return piece(p).sum(), {}

        grad.reverse(loss, rematerialise=True)(torch.ones(3), (), Context())
        assert (len(calls), asked) == (2, [True])  # the engine's own way hears of it
    assert torch.equal(grads, torch.full((3,), 2.0))
