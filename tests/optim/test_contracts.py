"""Every transform, run through every contract: one row each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch._dynamo.testing

from craft import optim, param, policy, tree
from craft.types import Context, Transform, Tree, Value, hyper

K = 3
STEPS = 4
TARGET = 0.5

SPEC: Tree = {
    "embed": param.Param((5, 4), param.Normal(0.5), ("V", "D"), rate=2.0),
    "blocks": [
        {
            "up": param.Param((4, 6), param.Normal(0.5), ("D", "F")),
            "down": param.Param((6, 4), param.Normal(0.5), ("F", "D"), rate=0.5),
            "gain": param.Param((4,), param.Constant(1.0), ("D",)),
        }
        for _ in range(1)
    ],
}
NO_VECTORS = {name: SPEC["blocks"][0][name] for name in ("up", "down")}
LARGE_MATRICES: Tree = {
    "down": param.Param((64, 64), param.Normal(0.5), ("D", "D")),
    "up": param.Param((60, 70), param.Normal(0.5), ("D", "F")),  # 16 blocks of 256 and a rest
}
LARGE: Tree = {**LARGE_MATRICES, "gain": param.Param((64,), param.Constant(1.0), ("D",))}


class Row(NamedTuple):
    """One transform: how it is made, from numbers that vmap may spread, and of what shape its parameters are.

    `slack` is the tolerance where sums in another order may fall to the other side of a rounding.
    """

    make: Callable[[Callable[[str], Value], Value], Transform]
    numbers: dict[str, tuple[float, float, float]] = {}
    spec: Any = SPEC
    smooth: bool = True
    slack: float = 0.0


def _rate(lr: Value) -> Transform:
    return optim.scale_by_rate(lr, None)


def _routed(read: Callable[[str], Value], lr: Value) -> Transform:
    adam, plain = optim.scale_by_adam(read("c1"), 0.05), optim.trace(0.1)
    labels = ["adam" if len(leaf.shape) > 1 else "plain" for leaf in tree.leaves(SPEC)]
    return optim.chain(optim.route(SPEC, labels, {"adam": adam, "plain": plain}), _rate(lr))


def _by_path(read: Callable[[str], Value], lr: Value) -> Transform:
    parts = {"embed": optim.scale_by_lion(read("c1")), r"blocks\.\d\.(up|down)": optim.scale_by_muon(0.05)}
    return optim.chain(optim.route_by_path(SPEC, parts, default=optim.scale_by_adam()), _rate(lr))


def _recipe(recipe: Any) -> Callable[[Callable[[str], Value], Value], Transform]:
    return lambda read, lr: recipe.build(SPEC, lr, at="optimizer")


TABLE = {
    "add_decay": Row(
        lambda read, lr: optim.chain(optim.add_decay(read("decay"), param.decayed(SPEC)), _rate(lr)),
        {"decay": (0.0, 0.01, 0.02)},
    ),
    "average": Row(lambda read, lr: optim.chain(_rate(lr), optim.average(read("c"))), {"c": (0.001, 0.1, 0.9)}),
    "chain": Row(lambda read, lr: optim.chain(optim.chain(optim.identity(), optim.trace(0.5)), _rate(lr))),
    "clip_by_norm": Row(lambda read, lr: optim.chain(optim.clip_by_norm(read("limit")), _rate(lr)), {"limit": (9.0, 1.0, 0.5)}),
    "identity": Row(lambda read, lr: optim.chain(optim.identity(), _rate(lr))),
    "scale": Row(lambda read, lr: optim.chain(optim.scale(read("factor")), _rate(lr)), {"factor": (0.5, 1.0, 2.0)}),
    "scale_by_rate": Row(lambda read, lr: optim.scale_by_rate(lr, param.rates(SPEC))),
    "scale_by_adam": Row(
        lambda read, lr: optim.chain(optim.scale_by_adam(read("c1"), read("c2"), read("eps")), _rate(lr)),
        {"c1": (0.1, 0.05, 1.0), "c2": (0.05, 0.01, 1.0), "eps": (1e-8, 1e-6, 1e-4)},
    ),
    "scale_by_lion": Row(
        lambda read, lr: optim.chain(optim.scale_by_lion(read("c1"), read("c2")), _rate(lr)),
        {"c1": (0.1, 0.2, 0.3), "c2": (0.01, 0.02, 0.03)},
        smooth=False,
    ),
    "scale_by_muon": Row(
        lambda read, lr: optim.chain(optim.scale_by_muon(read("c"), scaling="rms"), _rate(lr)),
        {"c": (0.05, 0.1, 0.5)},
        spec=NO_VECTORS,
        smooth=False,
    ),
    "trace": Row(lambda read, lr: optim.chain(optim.trace(read("c"), nesterov=True), _rate(lr)), {"c": (0.1, 0.5, 1.0)}),
    "trace dampened": Row(
        lambda read, lr: optim.chain(optim.trace(read("c"), dampening=0.5), _rate(lr)), {"c": (0.1, 0.5, 1.0)}
    ),
    "scale_by_adam in 8 bits": Row(
        lambda read, lr: optim.chain(optim.scale_by_adam(read("c1"), read("c2"), read("eps"), bits=8), _rate(lr)),
        {"c1": (0.1, 0.05, 1.0), "c2": (0.05, 0.01, 1.0), "eps": (1e-8, 1e-6, 1e-4)},
        spec=LARGE,
    ),
    "scale_by_lion in 8 bits": Row(
        lambda read, lr: optim.chain(optim.scale_by_lion(read("c1"), read("c2"), bits=8), _rate(lr)),
        {"c1": (0.1, 0.2, 0.3), "c2": (0.01, 0.02, 0.03)},
        spec=LARGE,
        smooth=False,
    ),
    "scale_by_muon in 8 bits": Row(
        lambda read, lr: optim.chain(optim.scale_by_muon(read("c"), scaling="rms", bits=8), optim.scale(4.0), _rate(lr)),
        {"c": (0.05, 0.1, 0.5)},
        spec=LARGE_MATRICES,
        smooth=False,
        slack=2e-3,
    ),
    "trace in 8 bits": Row(
        lambda read, lr: optim.chain(optim.trace(read("c"), nesterov=True, bits=8), _rate(lr)),
        {"c": (0.1, 0.5, 1.0)},
        spec=LARGE,
    ),
    "route": Row(_routed, {"c1": (0.1, 0.2, 0.3)}),
    "route_by_path": Row(_by_path, {"c1": (0.1, 0.2, 0.3)}, smooth=False),
    "AdamW": Row(
        _recipe(optim.AdamW(average=0.9)),
        {
            "optimizer.decay": (0.1, 0.01, 0.001),
            "optimizer.beta1": (0.1, 0.2, 0.3),
            "optimizer.beta2": (0.01, 0.05, 0.1),
            "optimizer.eps": (1e-8, 1e-7, 1e-6),
            "optimizer.clip": (0.1, 1.0, 10.0),
            "optimizer.average": (0.1, 0.2, 0.3),
        },
    ),
    "SGD": Row(
        _recipe(optim.SGD(decay=0.01, clip=10.0, nesterov=True)),
        {"optimizer.momentum": (0.1, 0.2, 0.5), "optimizer.decay": (0.0, 0.01, 0.02), "optimizer.clip": (1.0, 10.0, 20.0)},
    ),
    "Lion": Row(
        _recipe(optim.Lion(decay=0.01)),
        {"optimizer.beta1": (0.1, 0.2, 0.3), "optimizer.beta2": (0.01, 0.02, 0.03), "optimizer.decay": (0.0, 0.01, 0.02)},
        smooth=False,
    ),
    "Muon": Row(
        _recipe(optim.Muon(decay=0.01, rest=1.0)),
        {"optimizer.momentum": (0.05, 0.1, 0.2), "optimizer.rest": (0.5, 1.0, 2.0), "optimizer.beta2": (0.05, 0.1, 0.2)},
        smooth=False,
    ),
}
"""Every row: a transform that takes its learning rate from `lr` and its numbers from the context."""

NOT_TRANSFORMS = {"averaged", "groups", "orthogonalise"}
"""Public functions that make no transform; their own files test them."""

RATES = (0.01, 0.03, 0.1)

rows = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())


def made(row: Row) -> Transform:
    return row.make(lambda name: hyper(name, row.numbers[name][0]), hyper("lr", RATES[0]))


def numbers(row: Row, trial: int) -> dict[str, torch.Tensor]:
    table = {"lr": RATES, **row.numbers}
    return {name: torch.tensor(values[trial]) for name, values in table.items()}


def walk(transform: Transform, params: Tree, state: Tree, hypers: Tree, steps: int = STEPS) -> tuple[Tree, Tree]:
    """Descend a quadratic for some steps."""
    for _ in range(steps):
        grads = tree.map(lambda p: p - TARGET, params)
        updates, state = transform.update(grads, state, params, Context(hyper=hypers))
        params = tree.map(torch.add, params, updates)
    return params, state


def start(row: Row, seed: int = 0) -> tuple[Transform, Tree, Tree]:
    transform, params = made(row), param.materialise(row.spec, seed)
    return transform, params, transform.init(params)


def close(first: Tree, second: Tree, tolerance: float) -> None:
    for (path, a), b in zip(tree.named(first).items(), tree.leaves(second), strict=True):
        if a.dtype in (torch.int8, torch.uint8):
            assert int((a.int() - b.int()).abs().max()) <= (1 if tolerance > 1e-5 else 0), path
        else:
            assert torch.allclose(a, b, rtol=tolerance, atol=tolerance), f"{path} differs by up to {(a - b).abs().max()}"


def test_every_public_name_has_a_row() -> None:
    public = {name for name in vars(optim) if not name.startswith("_") and callable(getattr(optim, name))}
    assert public == {name.split()[0] for name in TABLE} | NOT_TRANSFORMS


@rows
def test_inputs_are_never_written(row: Row) -> None:
    transform, params, state = start(row)
    _, state = walk(transform, params, state, numbers(row, 0), 1)
    grads = tree.map(lambda p: p - TARGET, params)
    before = tree.map(torch.clone, (grads, state, params))
    for _ in range(2):
        transform.update(grads, state, params, Context(hyper=numbers(row, 0)))
    for a, b in zip(tree.leaves(before), tree.leaves((grads, state, params)), strict=True):
        assert torch.equal(a, b)


@rows
def test_the_new_state_is_fresh_memory(row: Row) -> None:
    _, params, state = start(row)
    held = {leaf.data_ptr() for leaf in tree.leaves(params)}
    assert not held & {leaf.data_ptr() for leaf in tree.leaves(state)}


@rows
def test_the_state_is_made_where_the_parameters_are(row: Row) -> None:
    state = made(row).init(param.abstract(row.spec))
    assert {leaf.device.type for leaf in tree.leaves(state)} <= {"meta"}


@rows
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_structure_shapes_and_types_are_kept(row: Row, dtype: torch.dtype) -> None:
    transform = made(row)
    params = tree.cast(param.materialise(row.spec, 0), dtype)
    state = transform.init(params)
    moved, after = walk(transform, params, state, numbers(row, 0), 2)
    for old, new in ((params, moved), (state, after)):
        assert tree.flatten(old)[1] == tree.flatten(new)[1]
        for path, leaf in tree.named(old).items():
            now = tree.named(new)[path]
            assert (now.shape, now.dtype) == (leaf.shape, leaf.dtype), path


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if not any("." in key for key in row.numbers)])
def test_constants_do_as_well_as_tensors(name: str) -> None:
    transform, params, state = start(TABLE[name])
    close(walk(transform, params, state, numbers(TABLE[name], 0)), walk(transform, params, state, {}), 1e-5)


@rows
def test_compiled_equals_eager(row: Row) -> None:
    torch._dynamo.reset()
    transform, params, state = start(row)
    params, state = walk(transform, params, state, numbers(row, 0))

    def update(params: Tree, state: Tree, hypers: Tree) -> tuple[Tree, Tree]:
        return walk(transform, params, state, hypers, 1)

    compiled = torch.compile(update, fullgraph=True, backend="aot_eager")
    close(compiled(params, state, numbers(row, 1)), update(params, state, numbers(row, 1)), max(1e-6, row.slack))


def test_another_number_is_no_other_program() -> None:
    torch._dynamo.reset()
    row = TABLE["AdamW"]
    transform, params, state = start(row)
    count = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    def update(params: Tree, state: Tree, hypers: Tree) -> tuple[Tree, Tree]:
        return walk(transform, params, state, hypers, 1)

    compiled = torch.compile(update, fullgraph=True, backend=count)
    for trial in range(K):
        params, state = compiled(params, state, numbers(row, trial))
    assert count.frame_count == 1


@rows
def test_a_pack_equals_its_trials_alone(row: Row) -> None:
    transform = made(row)
    params = [param.materialise(row.spec, seed) for seed in range(K)]
    states = [transform.init(one) for one in params]
    hypers = [numbers(row, trial) for trial in range(K)]

    def update(params: Tree, state: Tree, hypers: Tree) -> tuple[Tree, Tree]:
        return walk(transform, params, state, hypers)

    packed = torch.func.vmap(update)(tree.stack(params), tree.stack(states), tree.stack(hypers))
    for trial, (one, state, numbers_) in enumerate(zip(params, states, hypers, strict=True)):
        close(tree.unstack(packed)[trial], update(one, state, numbers_), max(1e-5, row.slack))


@rows
def test_a_compiled_pack_equals_a_pack(row: Row) -> None:
    torch._dynamo.reset()
    transform = made(row)
    params = tree.stack([param.materialise(row.spec, seed) for seed in range(K)])
    state = torch.func.vmap(transform.init)(params)
    hypers = tree.stack([numbers(row, trial) for trial in range(K)])

    def update(params: Tree, state: Tree, hypers: Tree) -> tuple[Tree, Tree]:
        return torch.func.vmap(lambda p, s, h: walk(transform, p, s, h, 1))(params, state, hypers)

    compiled = torch.compile(update, fullgraph=True, backend="aot_eager")
    close(compiled(params, state, hypers), update(params, state, hypers), max(1e-5, row.slack))


@rows
def test_a_quadratic_is_descended(row: Row) -> None:
    transform, params, state = start(row)
    moved, _ = walk(transform, params, state, {**numbers(row, 0), "lr": torch.tensor(0.05)}, 150)
    before = tree.norm(tree.map(lambda p: p - TARGET, params))
    after = tree.norm(tree.map(lambda p: p - TARGET, moved))
    assert after < (0.1 if row.smooth else 0.3) * before


def test_the_type_of_muons_products_is_the_policys() -> None:
    x_RC = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    with policy.using(compute=torch.bfloat16):
        low = optim.orthogonalise(x_RC)
    high = optim.orthogonalise(x_RC)
    assert low.dtype == high.dtype == torch.float32
    assert torch.equal(low, low.bfloat16().float())
    assert not torch.equal(low, high)
