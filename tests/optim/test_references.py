"""Twenty steps of each optimiser equal torch.optim, or the published lines written out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

from craft import optim, param, policy, tree
from craft.types import Context, Tensor, Transform, Tree

STEPS = 20
SPEC = {"matrix": param.Param((6, 4), param.Normal(1.0), ("D", "F")), "vector": param.Param((5,), param.Normal(1.0), ("D",))}


def gradient(params: Iterable[Tensor], step: int) -> list[Tensor]:
    """Return gradients that depend on the parameters and change from step to step."""
    noise = torch.Generator().manual_seed(step)
    return [torch.sin(3.0 * leaf) + torch.randn(leaf.shape, generator=noise, dtype=leaf.dtype) for leaf in params]


def ours(transform: Transform, params: Tree) -> Tree:
    state = transform.init(params)
    for step in range(STEPS):
        values, structure = tree.flatten(params)
        updates, state = transform.update(tree.unflatten(structure, gradient(values, step)), state, params, Context())
        params = tree.map(torch.add, params, updates)
    return params


def theirs(make: Callable[[list[Any]], torch.optim.Optimizer], params: Tree, clip: float = 0.0) -> list[Tensor]:
    leaves = [torch.nn.Parameter(leaf.clone()) for leaf in tree.leaves(params)]
    optimizer = make(leaves)
    for step in range(STEPS):
        for leaf, grad in zip(leaves, gradient([leaf.detach() for leaf in leaves], step), strict=True):
            leaf.grad = grad
        if clip:
            torch.nn.utils.clip_grad_norm_(leaves, clip)
        optimizer.step()
    return [leaf.detach() for leaf in leaves]


def same(first: Tree, second: Tree, tolerance: float = 1e-5) -> None:
    for a, b in zip(tree.leaves(first), tree.leaves(second), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def params() -> Tree:
    return param.materialise(SPEC, 0)


def test_adamw_equals_torch() -> None:
    def make(leaves: list[Any]) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [{"params": leaves[:1]}, {"params": leaves[1:], "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=0.03, betas=(0.8, 0.97), eps=1e-6, weight_decay=0.2)

    recipe = optim.AdamW(decay=0.2, beta1=0.8, beta2=0.97, eps=1e-6, clip=1.0)
    same(ours(recipe.build(SPEC, 0.03), params()), theirs(make, params(), clip=1.0))


def test_adamw_with_a_beta_of_zero_equals_torch() -> None:
    recipe = optim.AdamW(decay=0.0, beta1=0.0, beta2=0.9, clip=0.0)
    same(
        ours(recipe.build(SPEC, 0.03), params()),
        theirs(lambda leaves: torch.optim.AdamW(leaves, lr=0.03, betas=(0.0, 0.9), weight_decay=0.0), params()),
    )


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_equals_torch(momentum: float, nesterov: bool) -> None:
    def make(leaves: list[Any]) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [{"params": leaves[:1]}, {"params": leaves[1:], "weight_decay": 0.0}]
        return torch.optim.SGD(groups, lr=0.03, momentum=momentum, nesterov=nesterov, weight_decay=0.1)

    recipe = optim.SGD(momentum=momentum, nesterov=nesterov, decay=0.1, clip=2.0)
    same(ours(recipe.build(SPEC, 0.03), params()), theirs(make, params(), clip=2.0))


def test_dampening_equals_torch() -> None:
    transform = optim.chain(optim.trace(0.2, dampening=0.7), optim.scale_by_rate(0.03))
    same(
        ours(transform, params()),
        theirs(lambda leaves: torch.optim.SGD(leaves, lr=0.03, momentum=0.8, dampening=0.7), params()),
    )


@pytest.mark.parametrize("limit", [0.1, 1.0, 100.0])
def test_clip_equals_torch(limit: float) -> None:
    grads = dict(zip(("a", "b"), gradient(tree.leaves(params()), 0), strict=True))
    clipped, _ = optim.clip_by_norm(limit).update(grads, (), grads, Context())
    leaves = [torch.nn.Parameter(torch.zeros_like(leaf)) for leaf in grads.values()]
    for leaf, grad in zip(leaves, grads.values(), strict=True):
        leaf.grad = grad.clone()
    torch.nn.utils.clip_grad_norm_(leaves, limit)
    same(clipped, [leaf.grad for leaf in leaves], 1e-6)


def test_lion_equals_the_published_lines() -> None:
    values = tree.leaves(params())
    means = [torch.zeros_like(leaf) for leaf in values]
    for step in range(STEPS):
        grads = gradient(values, step)
        for i, grad in enumerate(grads):
            direction = torch.sign(0.9 * means[i] + 0.1 * grad)
            decay = 0.3 * values[i] if values[i].ndim > 1 else 0.0
            values[i] = values[i] - 0.01 * (direction + decay)
            means[i] = 0.98 * means[i] + 0.02 * grad
    same(ours(optim.Lion(decay=0.3, beta1=0.9, beta2=0.98, clip=0.0).build(SPEC, 0.01), params()), values)


def naive_muon(x_RC: Tensor, steps: int = 5) -> Tensor:
    """Orthogonalise as the post of Jordan et al. writes it, in float64 and without transposing."""
    x_RC = x_RC.double() / x_RC.double().norm()
    for _ in range(steps):
        gram = x_RC @ x_RC.mT
        x_RC = 3.4445 * x_RC + (-4.7750 * gram + 2.0315 * gram @ gram) @ x_RC
    return x_RC


@pytest.mark.parametrize("scaling", ["spectral", "rms"])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_muon_equals_the_published_lines(shape: tuple[int, int], scaling: Any) -> None:
    value = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    expected, mean = value.double(), torch.zeros(shape, dtype=torch.float64)
    inner, outer = shape
    factor = max(1.0, outer / inner) ** 0.5 if scaling == "spectral" else 0.2 * max(shape) ** 0.5
    for step in range(STEPS):
        (grad,) = gradient([expected.float()], step)
        mean = 0.95 * mean + 0.05 * grad
        expected = expected - 0.02 * (factor * naive_muon(0.05 * grad + 0.95 * mean) + 0.1 * expected)
    spec = {"weight": param.Param(shape, param.Normal(1.0), ("D", "F"))}
    recipe = optim.Muon(momentum=0.95, decay=0.1, scaling=scaling, clip=0.0)
    same(ours(recipe.build(spec, 0.02), {"weight": value}), [expected.float()], 1e-4)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
@pytest.mark.parametrize(("scaling", "name"), [("spectral", "original"), ("rms", "match_rms_adamw")])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_muon_equals_torch(shape: tuple[int, int], scaling: Any, name: str) -> None:
    """Torch multiplies in bfloat16 and its weights are (out, in); after 20 steps of 0.02 the sums agree to 0.02."""
    value = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    leaf = torch.nn.Parameter(value.mT.contiguous())
    optimizer = torch.optim.Muon([leaf], lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn=name)
    for step in range(STEPS):
        leaf.grad = gradient([torch.zeros(shape)], step)[0].mT.contiguous()
        optimizer.step()
    transform = optim.Muon(decay=0.1, scaling=scaling, clip=0.0).build(
        {"w": param.Param(shape, param.Normal(1.0), ("D", "F"))}, 0.02
    )
    now, state = {"w": value}, transform.init({"w": value})
    with policy.using(compute=torch.bfloat16):
        for step in range(STEPS):
            updates, state = transform.update({"w": gradient([torch.zeros(shape)], step)[0]}, state, now, Context())
            now = tree.map(torch.add, now, updates)
    torch.testing.assert_close(now["w"], leaf.detach().mT, rtol=0.0, atol=0.02)
    assert (now["w"] - value).abs().max() > 0.1
