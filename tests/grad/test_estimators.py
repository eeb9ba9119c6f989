"""Accumulation, gradients of each sample, sharpness and the forward gradient against their definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from craft import grad, losses, param, policy, rng, tree
from craft.mixers import Attention, FeedForward, Recurrence
from craft.models import Sequence
from craft.types import Batch, Context, Extras, Tensor, Tree

MODEL = Sequence(width=4, depth=1, pattern=(Recurrence(), Attention(heads=2), FeedForward(expand=2.0)), dropout=0.3).build(7)
LOSS = losses.next_token(MODEL)
REVERSE = grad.reverse(LOSS)
IDS = torch.randint(7, (2, 4, 5), generator=torch.Generator().manual_seed(0))
CONTEXT = Context(rng.key(3))


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MADE = tree.cast(param.materialise(MODEL.spec, 0), torch.float64)
PARAMS = tree.map(lambda leaf: leaf + 0.3 * noise(tuple(leaf.shape), leaf.numel()), MADE)


def batch(weights: Any = ((1, 1, 1, 1, 1), (1, 0, 0, 0, 0), (0, 0, 1, 0.5, 1), (1, 1, 0, 0, 0))) -> Batch:
    return Batch(IDS[0], IDS[1], torch.tensor(weights, dtype=torch.float32), torch.tensor([12, 3, 7, 40]))


def only(batch: Batch, sample: int) -> Batch:
    return tree.map(lambda leaf: leaf[sample : sample + 1], batch)  # type: ignore[no-any-return]


def close(first: Tree, second: Tree, tolerance: float = 1e-6) -> None:
    for (path, a), b in zip(tree.named(first).items(), tree.leaves(second), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=f"{path} differs by up to {(a - b).abs().max()}")


@settings(max_examples=10, deadline=None)
@given(
    counts=st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any),
    parts=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 2**40),
)
def test_however_a_batch_is_cut_the_gradient_is_the_same(counts: list[int], parts: int, seed: int) -> None:
    """With dropout on and any weights, also of parts that count nothing: whole, in parts, sample by sample."""
    ctx = Context(rng.key(seed))
    cut = batch([[1.0] * n + [0.0] * (5 - n) for n in counts])
    whole, metrics = REVERSE(PARAMS, cut, ctx)
    for grad_fn in (grad.accumulate(REVERSE, parts), grad.sample(REVERSE), grad.accumulate(grad.sample(REVERSE), parts)):
        grads, others = grad_fn(PARAMS, cut, ctx)
        close(grads, whole)
        close({name: others[name] for name in metrics}, metrics)


def test_other_steps_and_samples_see_other_masks() -> None:
    here = REVERSE(PARAMS, batch(), CONTEXT)[1]["loss"]
    assert torch.equal(here, REVERSE(PARAMS, batch(), CONTEXT)[1]["loss"])
    assert not torch.isclose(here, REVERSE(PARAMS, batch(), Context(rng.key(4)))[1]["loss"])
    moved = batch()._replace(sample_B=batch().sample_B + 1)
    assert not torch.isclose(here, REVERSE(PARAMS, moved, CONTEXT)[1]["loss"])
    order = [2, 0, 3, 1]
    shuffled: Batch = tree.map(lambda leaf: leaf[order], batch())
    torch.testing.assert_close(here, REVERSE(PARAMS, shuffled, CONTEXT)[1]["loss"])


def test_a_batch_that_counts_nothing_has_a_gradient_of_zero() -> None:
    empty = batch([[0.0] * 5] * 4)
    for grad_fn in (
        REVERSE,
        grad.accumulate(REVERSE, 2),
        grad.sample(REVERSE),
        grad.sample(REVERSE, 0.1),
        grad.sharpness(REVERSE),
    ):
        grads, metrics = grad_fn(PARAMS, empty, CONTEXT)
        assert float(tree.norm(grads)) == 0
        assert float(metrics["loss"]) == float(metrics["weight"]) == 0


def test_accumulation_holds_one_part_at_a_time() -> None:
    sizes = []

    def watch(params: Tree, part: Batch, ctx: Context) -> Any:
        sizes.append(part.inputs_BT.shape[0])
        return REVERSE(params, part, ctx)

    grad.accumulate(watch, 2)(PARAMS, batch(), CONTEXT)
    assert sizes == [2, 2]


def test_accumulation_weighs_buffers_too() -> None:
    def loss(params: Tree, part: Tree, ctx: Context) -> tuple[Tensor, Extras]:
        weight = part["w"].sum()
        mean = (part["x"] * part["w"]).sum() / weight
        return params * mean, {"weight": weight, "buffers": {"mean": mean, "twice": [2 * mean]}}

    whole = {"x": torch.tensor([1.0, 2.0, 5.0, 7.0]), "w": torch.tensor([1.0, 3.0, 0.5, 0.5])}
    expected = grad.reverse(loss)(torch.tensor(2.0), whole, Context())
    close(grad.accumulate(grad.reverse(loss), 2)(torch.tensor(2.0), whole, Context()), expected)


def test_what_accumulation_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        grad.accumulate(REVERSE, 0)
    with pytest.raises(ValueError, match="batch of 4 samples in 3 parts"):
        grad.accumulate(REVERSE, 3)(PARAMS, batch(), CONTEXT)
    without = grad.reverse(lambda p, b, c: (p.sum(), {}))
    with pytest.raises(ValueError, match="needs `weight`"):
        grad.accumulate(without, 1)(torch.ones(2), {"x": torch.ones(2)}, Context())


def test_sample_norms_equal_a_loop() -> None:
    metrics = grad.sample(REVERSE)(PARAMS, batch(), CONTEXT)[1]
    norms = torch.stack([tree.norm(REVERSE(PARAMS, only(batch(), i), CONTEXT)[0]) for i in range(4)])
    close(metrics["sample_norm_mean"], norms.mean())
    close(metrics["sample_norm_max"], norms.max())
    assert float(metrics["weight"]) == 10.5


@pytest.mark.parametrize("limit", [0.0, 0.05, 0.5, 1e9])
def test_clipping_equals_a_naive_loop(limit: float) -> None:
    grads = grad.sample(REVERSE, limit)(PARAMS, batch(), CONTEXT)[0]
    expected = tree.zeros_like(PARAMS)
    for i in range(4):
        one, metrics = REVERSE(PARAMS, only(batch(), i), CONTEXT)
        factor = float(metrics["weight"]) / 10.5 * min(1.0, limit / float(tree.norm(one)))
        expected = tree.map(lambda total, g, factor=factor: total + factor * g, expected, one)
    close(grads, expected)


def test_samples_without_weights_count_alike() -> None:
    grad_fn = grad.reverse(lambda p, b, c: ((p * b).sum(), {}))
    grads, metrics = grad.sample(grad_fn)(torch.ones(2), torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]]), Context())
    close(grads, torch.tensor([3.0, 5.0]))
    assert float(metrics["weight"]) == 3
    close(metrics["sample_norm_max"], torch.tensor([5.0, 9.0]).norm())


@pytest.mark.parametrize("radius", [0.05, 0.5])
def test_sharpness_by_hand(radius: float) -> None:
    here, metrics = REVERSE(PARAMS, batch(), CONTEXT)
    length = torch.stack([g.square().sum() for g in tree.leaves(here)]).sum().sqrt()
    there = tree.map(lambda p, g: p + radius * g / length, PARAMS, here)
    expected, worst = REVERSE(there, batch(), CONTEXT)
    grads, found = grad.sharpness(REVERSE, radius)(PARAMS, batch(), CONTEXT)
    close(grads, expected)
    close(found["loss"], worst["loss"])
    close(found["loss_here"], metrics["loss"])


def test_sharpness_climbs() -> None:
    metrics = grad.sharpness(REVERSE, 0.1)(PARAMS, batch(), CONTEXT)[1]
    assert metrics["loss"] > metrics["loss_here"]


def test_the_forward_gradient_by_hand() -> None:
    """One direction: the slope along it, by the reverse gradient, times it. The direction is read off the estimate."""
    exact = REVERSE(PARAMS, batch(), CONTEXT)[0]
    estimate, metrics = grad.forward(LOSS)(PARAMS, batch(), CONTEXT)
    v = tree.leaves(estimate)
    slope = torch.stack([(g * x).sum() for g, x in zip(tree.leaves(exact), v, strict=True)]).sum()
    total = torch.stack([x.square().sum() for x in v]).sum()
    # estimate = (g . v) v, so that g . estimate = (g . v)^2 and |estimate| = |g . v| |v|
    count = tree.size(PARAMS)
    assert float(slope) > 0
    assert float(total / slope) == pytest.approx(count, rel=6 * (2 / count) ** 0.5)
    close(metrics["loss"], REVERSE(PARAMS, batch(), CONTEXT)[1]["loss"], 1e-10)


def test_directions_are_averaged() -> None:
    def loss(p: Tree, b: Tree, ctx: Context) -> tuple[Tensor, Extras]:
        return (p - b).square().sum(), {}

    p, b, ctx = torch.ones(3), torch.tensor([0.0, 2.0, 5.0]), Context(rng.key(0))
    many = grad.forward(loss, 3)(p, b, ctx)[0]
    place = rng.fold_in(ctx.key, 0x666F7277)  # type: ignore[arg-type]
    expected = torch.zeros(3)
    for number in range(3):
        v = rng.normal(rng.fold_in(rng.fold_in(place, number), 0), (3,))
        expected = expected + torch.func.jvp(lambda p: loss(p, b, ctx)[0], (p,), (v,))[1] * v / 3
    close(many, expected)


def test_the_forward_gradient_is_unbiased() -> None:
    """The mean of 4000 estimates is within five standard errors of the gradient, in each number."""

    def loss(p: Tree, b: Tree, ctx: Context) -> tuple[Tensor, Extras]:
        return (p["a"] * b).sin().sum() * p["c"], {}

    p, b = {"a": torch.tensor([0.3, -1.0, 2.0]), "c": torch.tensor(0.7)}, torch.tensor([1.0, 0.5, -2.0])
    exact = torch.func.grad(lambda p: loss(p, b, Context())[0])(p)
    estimate = torch.func.vmap(lambda key: grad.forward(loss)(p, b, Context(key))[0])(rng.split(rng.key(0), 4000))
    for path, drawn in tree.named(estimate).items():
        error = drawn.std(0) / 4000**0.5
        assert bool(((drawn.mean(0) - exact[path]).abs() < 5 * error).all()), path


def test_the_forward_gradient_needs_a_key_and_a_direction() -> None:
    with pytest.raises(ValueError, match="without a key"):
        grad.forward(LOSS)(PARAMS, batch(), Context())
    with pytest.raises(ValueError, match="expected at least 1"):
        grad.forward(LOSS, directions=0)


def test_the_forward_gradient_takes_plain_kernels_whatever_the_policy() -> None:
    plain = grad.forward(LOSS)(PARAMS, batch(), CONTEXT)[0]
    with policy.using(tape=True, wrap=grad.remat):
        close(grad.forward(LOSS)(PARAMS, batch(), CONTEXT)[0], plain, 1e-12)
