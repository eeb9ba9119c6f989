"""Rematerialisation: the same gradients under every transform, the same random masks, and really less memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from craft import grad, losses, param, policy, rng, tree
from craft.mixers import Attention, FeedForward, Recurrence
from craft.models import Sequence
from craft.types import Batch, Context, Tensor, Tree

CONFIG = Sequence(width=8, depth=2, pattern=(Recurrence(), Attention(heads=2), FeedForward()), dropout=0.3)


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def setting(config: Sequence, size: int = 4, time: int = 9) -> tuple[Any, Tree, Batch]:
    model = config.build(7)
    params = tree.cast(param.materialise(model.spec, 0), torch.float64)
    params = tree.map(lambda leaf: leaf + 0.3 * noise(tuple(leaf.shape), leaf.numel()), params)
    ids = torch.randint(7, (2, size, time), generator=torch.Generator().manual_seed(0))
    return losses.next_token(model), params, Batch(ids[0], ids[1], torch.ones(size, time), torch.arange(size))


def same(first: Tree, second: Tree) -> None:
    for (path, a), b in zip(tree.named(first).items(), tree.leaves(second), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12, msg=path)


def test_gradients_are_equal_under_every_transform() -> None:
    loss, params, batch = setting(CONFIG)
    pack = tree.stack([params, tree.map(lambda leaf: leaf * 0.9, params), tree.map(torch.neg, params)])
    keys = rng.split(rng.key(1), 3)

    def value(params: Tree, key: Tensor) -> Tensor:
        return loss(params, batch, Context(key))[0]  # type: ignore[no-any-return]

    def total(pack: Tree) -> Tensor:
        return torch.func.vmap(value)(pack, keys).sum()

    def gradients() -> Tree:
        return (
            torch.func.grad(value)(params, keys[0]),
            torch.func.vmap(torch.func.grad(value))(pack, keys),
            torch.func.grad(total)(pack),
        )

    plain = gradients()
    with policy.using(wrap=grad.remat):
        same(gradients(), plain)


@pytest.mark.parametrize("tape", [False, True])
def test_the_masks_are_drawn_again_as_they_were(tape: bool) -> None:
    """Bit for bit: with dropout on, another mask in the backward pass would be another gradient altogether."""
    loss, params, batch = setting(CONFIG)
    with torch.no_grad(), policy.using(tape=tape):
        for seed in range(3):
            once, again = (grad.reverse(loss, remat)(params, batch, Context(rng.key(seed))) for remat in (False, True))
            assert torch.equal(once[1]["loss"], again[1]["loss"])
            same(once, again)


def test_any_tree_of_tensors_and_plain_numbers_goes_through() -> None:
    def function(first: Tree, second: Tree) -> Tree:
        x, factor = first["x"], second[0]
        return {"y": x * factor + second[1], "count": torch.arange(3), "hit": x > 0}

    leaves = {"x": torch.tensor([1.0, -2.0, 3.0]), "unused": torch.zeros(2)}, (3.0, torch.tensor([5, 6, 7]))
    out, expected = grad.remat(function)(*leaves), function(*leaves)
    assert tree.paths(out) == tree.paths(expected)
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(out), tree.leaves(expected), strict=True))
    slope = torch.func.grad(lambda first: grad.remat(function)(first, leaves[1])["y"].sum())(leaves[0])
    assert torch.equal(slope["x"], torch.full((3,), 3.0))
    assert torch.equal(slope["unused"], torch.zeros(2))


def test_what_a_region_does_not_need_may_be_none() -> None:
    """A context without a key has no leaf there."""
    loss, params, batch = setting(attrs.evolve(CONFIG, dropout=0.0))
    same(*(grad.reverse(loss, remat)(params, batch, Context()) for remat in (False, True)))


def test_second_and_third_derivatives() -> None:
    def function(x: Tensor) -> Tensor:
        return (x.sin() * x.exp()).sum()

    def derivative(f: Callable[[Tensor], Tensor], order: int) -> Callable[[Tensor], Tensor]:
        return f if order == 0 else derivative(lambda x: torch.func.grad(f)(x).sum(), order - 1)

    x = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    for order in (1, 2, 3):
        same(derivative(grad.remat(function), order)(x), derivative(function, order)(x))
        same(
            torch.func.vmap(derivative(grad.remat(function), order))(x[:, None]),
            torch.func.vmap(derivative(function, order))(x[:, None]),
        )


class Live(TorchDispatchMode):
    """Counts the bytes that tensors made inside hold, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(x.untyped_storage()) for x in tree.leaves([args]) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for x in tree.leaves([result]):
            if isinstance(x, Tensor) and id(x.untyped_storage()) not in given | self.known:
                self.add(x.untyped_storage())
        return result

    def add(self, storage: torch.UntypedStorage) -> None:
        number, size = id(storage), storage.nbytes()
        self.known.add(number)
        self.now += size
        self.peak = max(self.peak, self.now)

        def gone() -> None:
            self.known.discard(number)
            self.now -= size

        weakref.finalize(storage, gone)


def peak(function: Callable[[], Any]) -> int:
    live = Live()
    with live:
        result = function()
        del result
    return live.peak


def test_the_counter_counts() -> None:
    def chain(parts: int) -> Tensor:
        x = torch.zeros(1000)
        for _ in range(parts):
            x = x + 1
        return x

    assert peak(lambda: chain(2)) == peak(lambda: chain(9)) == 8000
    kept = peak(lambda: [torch.zeros(1000) for _ in range(9)])
    assert kept == 36000


@pytest.mark.parametrize("tape", [False, True])
def test_the_peak_of_memory_is_lower(tape: bool) -> None:
    """Eight blocks: what is alive at once falls to less than half, and grows by little with the depth."""
    config = Sequence(width=16, depth=8, pattern=(Attention(heads=2), FeedForward()))

    def at(depth: int, rematerialise: bool) -> int:
        loss, params, batch = setting(attrs.evolve(config, depth=depth), size=8, time=32)
        with torch.no_grad(), policy.using(tape=tape):
            return peak(lambda: grad.reverse(loss, rematerialise)(params, batch, Context()))

    kept, again = at(8, rematerialise=False), at(8, rematerialise=True)
    assert again < 0.5 * kept
    assert again - at(4, rematerialise=True) < 0.25 * (kept - at(4, rematerialise=False))
