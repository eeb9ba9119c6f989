"""The loss scale of fp16: nothing changes but what would have been lost, and an overflow costs one update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from craft import engine, grad, losses, optim, param, policy, rng, step, tree
from craft.grad.scale import CEILING, FLOOR, START, Scaling
from craft.mixers import Attention, FeedForward, Recurrence
from craft.models import Sequence
from craft.step import State
from craft.types import Batch, Context, Extras, Step, Tensor, Tree

MODEL = Sequence(width=16, depth=1, pattern=(Recurrence(), Attention(heads=2), FeedForward()), dropout=0.1).build(7)
LOSS = losses.next_token(MODEL)
IDS = torch.randint(7, (2, 4, 8), generator=torch.Generator().manual_seed(0))
BATCH = Batch(IDS[0], IDS[1], (torch.arange(8) < torch.tensor([[8], [1], [5], [3]])).float(), torch.tensor([3, 9, 4, 1]))
PARAMS = tree.map(
    lambda p: p + 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())),
    param.materialise(MODEL.spec, 0),
)


def scaling(scale: float = START, good: int = 0, skipped: int = 0) -> Scaling:
    return Scaling(torch.tensor(scale), torch.tensor(good), torch.tensor(skipped))


def context(scaling: Any = ()) -> Context:
    return Context(rng.key(0), scaling=scaling)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


WRAPPED: dict[str, Callable[[Any], Any]] = {
    "reverse": lambda grad_fn: grad_fn,
    "accumulate": lambda grad_fn: grad.accumulate(grad_fn, 2),
    "sample": lambda grad_fn: grad.sample(grad_fn),
    "sample clipped": lambda grad_fn: grad.sample(grad_fn, 0.5),
    "sharpness": lambda grad_fn: grad.sharpness(grad_fn, 0.05),
    "sharpness of parts": lambda grad_fn: grad.sharpness(grad.accumulate(grad_fn, 2)),
    "parts rematerialised": lambda grad_fn: grad.accumulate(grad.reverse(LOSS, rematerialise=True), 2),
}
ways = pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())


@ways
@pytest.mark.parametrize("tape", [False, True])
def test_in_float32_a_scale_changes_nothing(wrap: Any, tape: bool) -> None:
    """A power of two rounds nothing."""
    grad_fn = wrap(grad.reverse(LOSS))
    with policy.using(tape=tape):
        grads, metrics = grad.scale(grad_fn)(PARAMS, BATCH, context(scaling(2.0**10)))
        plain, expected = grad_fn(PARAMS, BATCH, context())
    for a, b in zip(tree.leaves(grads), tree.leaves(plain), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    for name, value in expected.items():
        torch.testing.assert_close(metrics[name], value, rtol=1e-5, atol=1e-7)
    assert not metrics["skip"]
    assert float(metrics["overflow"]) == 0
    assert metrics["scaling"] == scaling(2.0**10, good=1)


@ways
def test_in_float16_gradients_are_those_of_float32_up_to_its_rounding(wrap: Any) -> None:
    """Relative to the gradient's norm."""
    grad_fn = wrap(grad.reverse(LOSS))
    plain, _ = grad_fn(PARAMS, BATCH, context())
    with policy.using(compute=torch.float16):
        grads, metrics = grad.scale(grad_fn)(PARAMS, BATCH, context(scaling(2.0**10)))  # a sample alone has a larger gradient
    assert not metrics["skip"]
    difference = tree.norm(tree.map(torch.sub, grads, plain)) / tree.norm(plain)
    assert 1e-5 < float(difference) < 0.02


def faint(params: Tree, batch: Tensor, ctx: Context) -> tuple[Tensor, Extras]:
    """Give a product in the type of the policy so small a weight that its gradient is below the least number of fp16."""
    y_BN = batch.to(policy.current().compute) @ params.to(policy.current().compute)
    return 1e-9 * y_BN.float().sum(), {}


def test_a_gradient_that_would_vanish_does_not() -> None:
    params, batch = torch.ones(4, 3), torch.ones(2, 4)
    expected, _ = grad.reverse(faint)(params, batch, Context())
    with policy.using(compute=torch.float16):
        lost, _ = grad.reverse(faint)(params, batch, Context())
        kept, _ = grad.scale(grad.reverse(faint))(params, batch, context(scaling()))
    assert float(lost.abs().max()) == 0
    torch.testing.assert_close(kept, expected, rtol=2e-3, atol=0.0)


@ways
def test_an_overflow_is_told_by_every_gradient_function(wrap: Any) -> None:
    """Also where it is hidden from the gradient: clipping a sample's endless norm to 0, or the sign of nan."""
    with policy.using(compute=torch.float16):
        _, metrics = grad.scale(wrap(grad.reverse(LOSS)))(PARAMS, BATCH, context(scaling(2.0**24, good=5, skipped=2)))
        signed = lambda p, b, c: (tree.map(torch.sign, (found := wrap(grad.reverse(LOSS))(p, b, c))[0]), found[1])  # noqa: E731
        _, hidden = grad.scale(signed)(PARAMS, BATCH, context(scaling(2.0**24, good=5, skipped=2)))
    for told in (metrics, hidden):
        assert told["skip"]
        assert float(told["overflow"]) == 1
        assert told["scaling"] == scaling(2.0**23, good=0, skipped=3)
        assert all(bool(torch.isfinite(value)) for name, value in told.items() if name != "scaling")


def given(params: Tree, batch: Tree, ctx: Context) -> tuple[Tree, Any]:
    """Return a gradient and a loss that come with the batch."""
    return tree.map(lambda p: batch["grad"].expand_as(p), params), {"loss": batch["loss"]}


def verdict(scale: float, good: int, gradient: float = 1.0, loss: float = 1.0, patience: int = 3) -> tuple[Any, bool]:
    numbers = {"grad": torch.tensor(gradient), "loss": torch.tensor(loss)}
    _, metrics = grad.scale(given, patience)(torch.ones(2), numbers, context(scaling(scale, good)))
    return metrics["scaling"], bool(metrics["skip"])


def test_the_scale_grows_after_good_steps_and_falls_after_a_bad_one() -> None:
    inf = float("inf")
    assert verdict(8.0, 0) == (scaling(8.0, 1), False)
    assert verdict(8.0, 2) == (scaling(16.0, 0), False)
    assert verdict(8.0, 2, gradient=inf) == (scaling(4.0, 0, 1), True)
    assert verdict(CEILING, 2) == (scaling(CEILING, 0), False)
    assert verdict(2 * FLOOR, 0, gradient=inf) == (scaling(FLOOR, 0, 1), True)
    assert verdict(FLOOR, 0, gradient=inf)[1] is False  # not skipped: it stops the run
    assert verdict(8.0, 0, loss=float("nan"), gradient=inf)[1] is False  # no scale helps a loss


def test_inside_another_function_it_is_refused() -> None:
    for name, wrap in (("accumulate", lambda f: grad.accumulate(f, 2)), ("sample", grad.sample), ("sharpness", grad.sharpness)):
        with pytest.raises(ValueError, match=rf"put it outermost: grad.scale\(grad.{name}\(...\)\)"):
            wrap(grad.scale(grad.reverse(LOSS)))(PARAMS, BATCH, context(scaling()))
    with pytest.raises(ValueError, match="got patience=0"):
        grad.scale(given, 0)


# in a step

LINE = {"head": param.Param((4, 3), param.Normal(0.5), ("D", "N"))}
TRANSFORM = optim.chain(optim.scale_by_adam(), optim.scale_by_rate(0.01), optim.average(0.5))
POINTS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def squares(params: Tree, batch: Tensor, ctx: Context) -> tuple[Tensor, Extras]:
    y_BN = batch.to(policy.current().compute) @ params["head"].to(policy.current().compute)
    return (y_BN.float() - 1).square().mean(), {}


GRADIENT = grad.reverse(squares)
UPDATE = step.build(GRADIENT, TRANSFORM)


def begin(scale: float = START, seed: int = 0) -> State:
    state = step.scaled(step.start(param.materialise(LINE, seed), TRANSFORM, steps=10, seed=seed))
    return state._replace(scaling=state.scaling._replace(scale=torch.tensor(scale)))  # type: ignore[no-any-return]


def half(update: Callable[..., Any]) -> Step:
    def run(*arguments: Any) -> Any:
        with torch.no_grad(), policy.using(compute=torch.float16):
            return update(*arguments)

    return run


def by_engine() -> Step:
    with policy.using(compute=torch.float16):
        program = engine.compile_step(UPDATE, begin(), POINTS)

    def run(state: State, batch: Tensor) -> Any:
        state = tree.map(torch.clone, state)
        return state, program(state, batch)

    return run


WAYS: dict[str, Callable[[], Step]] = {
    "eager": lambda: half(UPDATE),
    "compiled": lambda: half(torch.compile(UPDATE, fullgraph=True, backend="aot_eager")),
    "engine": by_engine,
}


@pytest.mark.parametrize("way", list(WAYS))
def test_an_overflow_costs_one_update_and_half_the_scale(way: str) -> None:
    update = WAYS[way]()
    state = update(begin(), POINTS)[0]
    before = state._replace(scaling=scaling(2.0**24, 1, 0))
    skipped, metrics = update(before, POINTS)
    assert (int(skipped.step), bool(skipped.halted)) == (2, False)
    assert skipped.scaling == scaling(2.0**23, 0, 1)
    assert (float(metrics["overflow"]), float(metrics["loss_scale"]), float(metrics["grad_norm"])) == (1, 2.0**24, 0)
    same = skipped._replace(step=before.step, scaling=before.scaling)
    for path, leaf in tree.named(same).items():
        assert torch.equal(leaf, tree.named(before)[path]), path
    moved, metrics = update(skipped._replace(scaling=scaling(START, 0, 1)), POINTS)
    assert moved.scaling == scaling(START, 1, 1)
    assert int(moved.step) == 3
    assert float(metrics["grad_norm"]) > 0
    assert not torch.equal(moved.params["head"], skipped.params["head"])


def test_a_gradient_that_overflows_at_the_smallest_scale_stops_the_run() -> None:
    transform = optim.scale_by_rate(0.1)
    endless = step.build(grad.reverse(lambda p, b, c: ((p.half() * 300).float().sum() * float("1e30"), {})), transform)
    state = step.scaled(step.start(torch.zeros(3), transform, steps=100))
    for _ in range(40):
        state, _ = endless(state, ())
    assert bool(state.halted)
    assert float(state.scaling.scale) == FLOOR
    assert int(state.step) == int(state.scaling.skipped) == 30
    assert torch.equal(state.params, torch.zeros(3))


def test_each_trial_of_a_pack_has_a_scale_of_its_own() -> None:
    trials = [begin(START, 0), begin(2.0**24, 1), begin(2.0**8, 2)]
    with policy.using(compute=torch.float16):
        packed, metrics = torch.func.vmap(UPDATE, in_dims=(0, None))(tree.stack(trials), POINTS)
        alone = [UPDATE(trial, POINTS)[0] for trial in trials]
    assert packed.scaling.scale.tolist() == [START, 2.0**23, 2.0**8]
    assert packed.scaling.skipped.tolist() == [0, 1, 0]
    assert packed.halted.tolist() == [False] * 3
    assert metrics["overflow"].tolist() == [0, 1, 0]
    for one, other in zip(tree.unstack(packed), alone, strict=True):
        for a, b in zip(tree.leaves(one.params), tree.leaves(other.params), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)


def test_in_any_other_type_the_state_and_its_bits_are_as_before() -> None:
    state = step.start(param.materialise(LINE, 0), TRANSFORM, steps=10)
    assert not any("scaling" in path for path in tree.paths(state))
    after, metrics = UPDATE(state, POINTS)
    assert not {"skip", "scaling", "overflow", "loss_scale"} & set(metrics)
    grads, _ = GRADIENT(state.params, POINTS, step.context(state))
    updates, _ = TRANSFORM.update(grads, state.opt, state.params, step.context(state))
    expected = tree.map(torch.add, state.params, updates)
    for a, b in zip(tree.leaves(after.params), tree.leaves(expected), strict=True):
        assert torch.equal(a, b)
