"""The training step: pure, halting on numbers that are not finite, and the same alone, compiled and in packs."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from craft import grad, losses, optim, param, policy, rng, step, tree
from craft.mixers import FeedForward
from craft.models import Sequence
from craft.step import State
from craft.types import Batch, Context, Metrics, Step, Tensor, Tree, hyper

STEPS = 10
K = 3
VOCABULARY = 7
RATES = (0.01, 0.03, 0.1)

MODEL = Sequence(width=8, depth=1, pattern=(FeedForward(expand=2.0),), dropout=0.2).build(VOCABULARY)
TRANSFORM = optim.AdamW(decay=0.1, clip=1.0, average=0.9).build(MODEL.spec, hyper("lr", 0.01))
UPDATE = step.build(grad.reverse(losses.next_token(MODEL)), TRANSFORM)
NUMBERS = {"model.dropout": 0.3, "optimizer.beta1": 0.2}


def batch(number: int) -> Batch:
    source = torch.Generator().manual_seed(number)
    ids = torch.randint(VOCABULARY, (4, 7), generator=source)
    weights = (torch.rand(4, 6, generator=source) < 0.8).float()
    return Batch(ids[:, :-1], ids[:, 1:], weights, 4 * number + torch.arange(4))


BATCHES = [batch(number) for number in range(STEPS)]


def begin(seed: int = 0, lr: float = 0.01) -> State:
    params = param.materialise(MODEL.spec, seed)
    return step.start(params, TRANSFORM, steps=STEPS, seed=seed, hyper={"lr": lr, **NUMBERS})


def walk(update: Step, state: Any, steps: int = STEPS) -> tuple[Any, Tensor]:
    seen = []
    for number in range(steps):
        state, metrics = update(state, BATCHES[number])
        seen.append(metrics["loss"])
    return state, torch.stack(seen)


def same_bits(first: Tree, second: Tree) -> None:
    for (path, a), b in zip(tree.named(first).items(), tree.leaves(second), strict=True):
        assert torch.equal(a, b), path


def close(first: Tree, second: Tree, tolerance: float) -> None:
    for (path, a), b in zip(tree.named(first).items(), tree.leaves(second), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=f"{path} differs by up to {(a - b).abs().max()}")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


def test_build_is_at_most_thirty_lines() -> None:
    """Lines of code: the docstring and empty lines do not count."""
    source = textwrap.dedent(inspect.getsource(step.build))
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert ast.get_docstring(function)
    described = function.body[0].end_lineno or 0
    body = [line for line in source.splitlines()[described:] if line.strip()]
    assert len(body) + 1 <= 30


def test_a_step_by_hand() -> None:
    state = begin()
    ctx = Context(rng.fold_in(rng.key(0), 0), state.hyper, (), torch.tensor(0.0))
    grads, metrics = grad.reverse(losses.next_token(MODEL))(state.params, BATCHES[0], ctx)
    updates, opt = TRANSFORM.update(grads, state.opt, state.params, ctx)
    new, found = UPDATE(state, BATCHES[0])
    same_bits(new.params, tree.map(torch.add, state.params, updates))
    same_bits(new.opt, opt)
    same_bits(found, {**metrics, "grad_norm": tree.norm(grads)})
    assert (int(new.step), bool(new.halted), int(new.seed), int(new.horizon)) == (1, False, 0, STEPS)


def test_it_writes_nothing_and_gives_the_same_bits_again() -> None:
    state = begin()
    before = tree.map(torch.clone, (state, BATCHES[0]))
    first, second = UPDATE(state, BATCHES[0]), UPDATE(state, BATCHES[0])
    same_bits(before, (state, BATCHES[0]))
    same_bits(first, second)
    assert tree.flatten(first[0])[1] == tree.flatten(state)[1]
    for old, new in zip(tree.leaves(state), tree.leaves(first[0]), strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype)


def test_it_learns() -> None:
    state, seen = begin(lr=0.03), []
    for _ in range(60):
        state, metrics = UPDATE(state, BATCHES[0])
        seen.append(float(metrics["loss"]))
    assert seen[-1] < 0.6 * seen[0]


def test_what_a_step_lends() -> None:
    state = begin(seed=5)._replace(step=torch.tensor(4), buffers={"mean": torch.tensor(2.0)})
    ctx = step.context(state)
    assert ctx.key is not None
    assert torch.equal(ctx.key, rng.fold_in(rng.key(5), 4))
    assert float(ctx.progress) == pytest.approx(0.4)
    assert ctx.hyper == state.hyper
    assert ctx.buffers == state.buffers


def test_a_run_of_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="got steps=0"):
        step.start({}, optim.identity(), steps=0)


def test_the_average_is_what_evaluation_sees() -> None:
    state, _ = walk(UPDATE, begin(), 3)
    assert not torch.equal(tree.leaves(step.averaged(state))[0], tree.leaves(state.params)[0])
    plain = step.start(state.params, optim.identity(), steps=1)
    assert step.averaged(plain) is plain.params


# halting: a gradient function of one's own, whose numbers come with the batch


def given(params: Tree, batch: Tree, ctx: Context) -> tuple[Tree, Metrics]:
    return tree.map(lambda p: batch["grad"].expand_as(p), params), {
        "loss": batch["loss"],
        "buffers": {"count": ctx.buffers["count"] + 1},
    }


HALTING = step.build(given, optim.chain(optim.scale_by_adam(), optim.scale_by_rate(0.1, None), optim.average(0.5)))
ADAM = optim.chain(optim.scale_by_adam(), optim.scale_by_rate(0.1, None), optim.average(0.5))


def numbers(loss: float = 1.0, gradient: float = 1.0) -> Tree:
    return {"loss": torch.tensor(loss), "grad": torch.tensor(gradient)}


def halting_state() -> State:
    params = {"a": torch.ones(3), "b": torch.tensor(2.0)}
    state = step.start(params, ADAM, steps=9, hyper={"x": 1.0}, buffers={"count": torch.tensor(0.0)})
    return HALTING(state, numbers())[0]  # type: ignore[no-any-return]


def trace(state: Any, batch: Tree) -> Step:
    """Make a program of the step as the engine does."""
    leaves, structure = tree.flatten((state, batch))
    made: list[Any] = []

    def flat(*values: Tensor) -> list[Tensor]:
        outputs, form = tree.flatten(HALTING(*tree.unflatten(structure, values)))
        made[:] = [form]
        return outputs

    graph = make_fx(flat, tracing_mode="fake")(*leaves)
    return lambda state, batch: tree.unflatten(made[0], graph(*tree.leaves((state, batch))))


WAYS: dict[str, Callable[[], Step]] = {
    "eager": lambda: HALTING,
    "compiled": lambda: torch.compile(HALTING, fullgraph=True, backend="aot_eager"),
    "traced": lambda: trace(halting_state(), numbers()),
}
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("way", list(WAYS))
def test_numbers_that_are_not_finite_stop_everything(way: str) -> None:
    """Also a gradient whose norm overflows. The loss that was is still reported."""
    state, update = halting_state(), WAYS[way]()
    for loss, gradient in ((NAN, 1.0), (INF, 1.0), (1.0, NAN), (1.0, INF), (1.0, -INF), (1.0, 1e30)):
        stopped, metrics = update(state, numbers(loss, gradient))
        assert bool(stopped.halted)
        same_bits(stopped._replace(halted=state.halted), state)
        torch.testing.assert_close(metrics["loss"], torch.tensor(loss), equal_nan=True)
        for _ in range(2):
            stopped, _ = update(stopped, numbers())
            assert bool(stopped.halted)
            same_bits(stopped._replace(halted=state.halted), state)


def test_finite_numbers_go_on() -> None:
    state = halting_state()
    after, _ = HALTING(state, numbers(loss=1e38, gradient=1e15))
    assert not bool(after.halted)
    assert int(after.step) == int(state.step) + 1


def test_buffers_are_folded_in_once_and_are_no_metric() -> None:
    state = halting_state()
    for expected in (2, 3, 4):
        state, metrics = HALTING(state, numbers())
        assert float(state.buffers["count"]) == expected
        assert sorted(metrics) == ["grad_norm", "loss"]


def test_an_update_that_is_not_finite_stops_the_next_step_at_the_latest() -> None:
    """A finite gradient times an endless learning rate: the loss is not finite after it, and nothing moves any more."""
    state = begin(lr=float("inf"))
    state, _ = UPDATE(state, BATCHES[0])
    frozen, _ = UPDATE(state, BATCHES[1])
    assert bool(frozen.halted)
    again, _ = UPDATE(frozen, BATCHES[2])
    for path, leaf in tree.named(again).items():
        assert torch.equal(leaf.nan_to_num(), tree.named(frozen)[path].nan_to_num()), path


def test_an_update_that_is_to_be_left_out_counts_and_moves_nothing() -> None:
    """Also where its numbers are not finite; a run that has halted stays so."""
    update = step.build(lambda p, b, c: (given(p, b, c)[0], {**given(p, b, c)[1], "skip": b["skip"]}), ADAM)
    state = halting_state()
    for number in (1.0, NAN):
        after, metrics = update(state, {**numbers(number, number), "skip": torch.tensor(True)})
        assert (int(after.step), bool(after.halted), float(metrics["grad_norm"])) == (int(state.step) + 1, False, 0)
        assert "skip" not in metrics
        same_bits(after._replace(step=state.step), state)
    moved, _ = update(state, {**numbers(), "skip": torch.tensor(False)})
    same_bits(moved, HALTING(state, numbers())[0])
    stopped = state._replace(halted=torch.tensor(True))
    same_bits(update(stopped, {**numbers(), "skip": torch.tensor(True)})[0], stopped)


# one function: alone, compiled, in a pack


def test_compiled_equals_eager() -> None:
    """Ten steps with dropout: losses to 1e-5."""
    state, expected = walk(UPDATE, begin())
    compiled, found = walk(torch.compile(UPDATE, fullgraph=True, backend="aot_eager"), begin())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    close(compiled.params, state.params, 1e-4)


def test_the_tape_equals_torch_func() -> None:
    expected = walk(UPDATE, begin())[1]
    with torch.no_grad(), policy.using(tape=True):
        found = walk(UPDATE, begin())[1]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def packed(update: Callable[..., Any]) -> Step:
    return lambda state, batch: torch.func.vmap(update, in_dims=(0, None))(state, batch)


def test_a_pack_reaches_the_losses_of_its_trials_alone() -> None:
    """K learning rates and seeds in one program, with dropout on: losses to 1e-5, parameters to 1e-4."""
    trials = [begin(seed, lr) for seed, lr in enumerate(RATES)]
    alone = [walk(UPDATE, trial) for trial in trials]
    state, found = walk(packed(UPDATE), tree.stack(trials))
    compiled = torch.compile(packed(UPDATE), fullgraph=True, backend="aot_eager")
    _, compiled_found = walk(compiled, tree.stack(trials))
    expected = torch.stack([seen for _, seen in alone], 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(compiled_found, expected, rtol=1e-5, atol=1e-5)
    for trial, (after, _) in zip(tree.unstack(state), alone, strict=True):
        close(trial.params, after.params, 1e-4)
        assert int(trial.step) == STEPS
    assert len({round(float(x), 6) for x in found[-1]}) == K


def test_a_trial_that_diverges_leaves_the_others_bits() -> None:
    def run(rate: float) -> tuple[State, Tensor]:
        return walk(packed(UPDATE), tree.stack([begin(0, 0.01), begin(1, rate), begin(2, 0.1)]))

    benign, quiet = run(0.03)
    wild, loud = run(1e30)  # the norms flatten such numbers to a finite loss; it is the gradient that is not finite
    assert wild.halted.tolist() == [False, True, False]
    assert benign.halted.tolist() == [False] * 3
    assert int(wild.step[1]) < STEPS
    for trial in (0, 2):
        same_bits(tree.unstack(wild)[trial], tree.unstack(benign)[trial])
        assert torch.equal(loud[:, trial], quiet[:, trial])


def test_a_step_of_ones_own_state() -> None:
    """Two parameter trees, one step: all that drivers ask for is `step` and `halted`."""
    from typing import NamedTuple

    class Pair(NamedTuple):
        step: Tensor
        halted: Tensor
        left: Tensor
        right: Tensor

    def update(state: Pair, batch: Tensor) -> tuple[Pair, Metrics]:
        left = state.left - 0.1 * torch.func.grad(lambda x: (x * batch).square().sum())(state.left)
        return state._replace(step=state.step + 1, left=left, right=state.right.lerp(left, 0.5)), {"loss": left.sum()}

    state = Pair(torch.tensor(0), torch.tensor(False), torch.ones(2), torch.zeros(2))
    expected, _ = update(state, torch.ones(2))
    found, _ = torch.func.vmap(update, in_dims=(0, None))(tree.stack([state, state]), torch.ones(2))
    for trial in tree.unstack(found):
        same_bits(trial, expected)
