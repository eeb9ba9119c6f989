"""Every gradient function, run through every contract: one row each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from craft import grad, losses, nn, param, policy, rng, tree
from craft.mixers import Attention, FeedForward
from craft.models import Sequence
from craft.types import Batch, Context, Extras, GradFn, Loss, Tensor, Tree, hyper

K = 3
CONFIG = Sequence(width=4, depth=1, pattern=(Attention(heads=2), FeedForward(expand=2.0)), dropout=0.25)
MODEL = CONFIG.build(7)
LOSS = losses.next_token(MODEL)


class Row(NamedTuple):
    """A gradient function of a loss; whether it is the plain gradient, and Dynamo can trace it."""

    make: Callable[[Loss], GradFn]
    exact: bool = True
    dynamo: bool = True


TABLE = {
    "reverse": Row(grad.reverse),
    "reverse rematerialised": Row(lambda loss: grad.reverse(loss, rematerialise=True), dynamo=False),
    "accumulate": Row(lambda loss: grad.accumulate(grad.reverse(loss), 2)),
    "accumulate rematerialised": Row(lambda loss: grad.accumulate(grad.reverse(loss, rematerialise=True), 4), dynamo=False),
    "sample": Row(lambda loss: grad.sample(grad.reverse(loss))),
    "sample clipped": Row(lambda loss: grad.sample(grad.reverse(loss), hyper("limit", 0.5)), exact=False),
    "sharpness": Row(lambda loss: grad.sharpness(grad.reverse(loss), hyper("radius", 0.05)), exact=False),
    "scale": Row(lambda loss: grad.scale(grad.accumulate(grad.reverse(loss), 2))),
    "forward": Row(lambda loss: grad.forward(loss, directions=2), exact=False),
}
"""Every row: one way to estimate the gradient of a loss."""

NOT_GRAD_FNS = {"remat", "Scaling", "start_scaling"}
"""Public functions that make no GradFn; their own files test them."""

rows = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def params(seed: int = 0) -> Tree:
    made = tree.cast(param.materialise(MODEL.spec, seed), torch.float64)
    return tree.map(lambda leaf: leaf + 0.3 * noise(tuple(leaf.shape), seed + leaf.numel()), made)


IDS = torch.randint(7, (2, 4, 6), generator=torch.Generator().manual_seed(0))
WEIGHTS = (torch.arange(6) < torch.tensor([[6], [1], [4], [3]])).float()
BATCH = Batch(IDS[0], IDS[1], WEIGHTS, torch.tensor([12, 3, 7, 40]))


def context(seed: int = 0, **numbers: float) -> Context:
    return Context(rng.key(seed), {name: torch.tensor(number) for name, number in numbers.items()}, (), torch.tensor(0.0))


def close(first: Tree, second: Tree, tolerance: float = 1e-10) -> None:
    assert tree.paths(first) == tree.paths(second)
    for (path, a), b in zip(tree.named(first).items(), tree.leaves(second), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=f"{path} differs by up to {(a - b).abs().max()}")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


def test_every_public_name_has_a_row() -> None:
    public = {name for name in vars(grad) if not name.startswith("_") and callable(getattr(grad, name))}
    assert public == {name.split()[0] for name in TABLE} | NOT_GRAD_FNS


@rows
def test_gradients_and_metrics_have_the_promised_form(row: Row) -> None:
    grads, metrics = row.make(LOSS)(params(), BATCH, context())
    assert tree.paths(grads) == tree.paths(params())
    for g, p in zip(tree.leaves(grads), tree.leaves(params()), strict=True):
        assert (g.shape, g.dtype) == (p.shape, p.dtype)
        assert not g.requires_grad
    assert {"loss", "weight", "accuracy"} <= set(metrics)
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())
    assert float(metrics["weight"]) == 14


@rows
def test_exact_ones_equal_the_plain_gradient(row: Row) -> None:
    """With dropout on and unequal weights: masks go by sample, parts count by their tokens (in float32)."""
    grads, metrics = row.make(LOSS)(params(), BATCH, context())
    plain, (value, extras) = torch.func.grad_and_value(LOSS, has_aux=True)(params(), BATCH, context())
    if row.exact:
        close(grads, plain, 1e-6)
        close({name: metrics[name] for name in ("loss", *extras)}, {"loss": value, **extras}, 1e-6)
    else:
        assert not torch.allclose(tree.leaves(grads)[0], tree.leaves(plain)[0])


@rows
def test_inputs_are_never_written_and_the_same_call_gives_the_same_bits(row: Row) -> None:
    arguments = params(), BATCH, context()
    before = tree.map(torch.clone, arguments)
    grad_fn = row.make(LOSS)
    first, second = grad_fn(*arguments), grad_fn(*arguments)
    for a, b in zip(tree.leaves((before, first)), tree.leaves((arguments, second)), strict=True):
        assert torch.equal(a, b)
    assert policy.current() == policy.Policy()


@rows
def test_the_tape_gives_the_same(row: Row) -> None:
    """The policy `tape` takes autograd's tape; what needs vmap or forward mode must see to it that it does not matter."""
    expected = row.make(LOSS)(params(), BATCH, context())
    with torch.no_grad(), policy.using(tape=True):
        close(row.make(LOSS)(params(), BATCH, context()), expected)


@rows
def test_a_pack_equals_its_members_alone(row: Row) -> None:
    """Trials with parameters, keys and numbers of their own."""
    grad_fn = row.make(LOSS)
    members = [params(seed) for seed in range(K)]
    contexts = [context(seed, limit=0.1 + seed, radius=0.01 * (1 + seed)) for seed in range(K)]
    stacked = (tree.stack(members), tree.stack([c.key for c in contexts]), tree.stack([dict(c.hyper) for c in contexts]))
    packed = torch.func.vmap(lambda p, key, numbers: grad_fn(p, BATCH, Context(key, numbers)))(*stacked)
    for member, ctx, one in zip(members, contexts, tree.unstack(packed), strict=True):
        close(one, grad_fn(member, BATCH, ctx))


def small_apply(params: Tree, ids_BT: Tensor, ctx: Context) -> tuple[Tensor, Extras]:
    return nn.dropout(params["table"][ids_BT], 0.25, ctx.key) @ params["head"], {}


@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in TABLE.items() if row.dynamo])
def test_a_compiled_pack_equals_a_pack(row: Row) -> None:
    """On the smallest model that draws masks; tests/models compiles the others."""
    grad_fn = row.make(losses.next_token(MODEL._replace(apply=small_apply, features=None, head=None)))
    members = {"table": noise((K, 7, 3), 0), "head": noise((K, 3, 7), 1)}
    keys = rng.split(rng.key(0), K)

    def run(members: Tree, keys: Tensor) -> Any:
        return torch.func.vmap(lambda p, key: grad_fn(p, BATCH, Context(key)))(members, keys)

    close(torch.compile(run, fullgraph=True, backend="aot_eager")(members, keys), run(members, keys), 1e-6)


@pytest.mark.parametrize("name", ["reverse", "reverse rematerialised"])
@pytest.mark.parametrize("packed", [False, True])
def test_traced_as_the_engine_traces_equals_eager(name: str, packed: bool) -> None:
    """The engine's own way to a program, `make_fx` on fake tensors.

    It is the only one for rematerialisation: Dynamo cannot trace a function that is stored in an autograd context.
    """
    grad_fn = TABLE[name].make(LOSS)
    arguments: Tree = (params(), BATCH, rng.key(0))
    run = lambda p, b, key: grad_fn(p, b, Context(key))  # noqa: E731
    if packed:
        arguments = (tree.stack([params(seed) for seed in range(K)]), BATCH, rng.split(rng.key(0), K))
        run = torch.func.vmap(run, in_dims=(0, None, 0))
    leaves, structure = tree.flatten(arguments)
    graph = make_fx(lambda *values: tree.leaves(run(*tree.unflatten(structure, values))), tracing_mode="fake")(*leaves)
    close(list(graph(*leaves)), tree.leaves(run(*arguments)))
