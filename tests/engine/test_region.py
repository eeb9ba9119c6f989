"""Regions: blocks that are compiled once and called often give the numbers and the gradients that they gave before."""

import pytest
import torch

from craft import policy, tree
from craft.engine import compile_function, compile_step
from craft.engine import region as regions
from craft.engine.program import _Given, _traced


def loop(function, params, x):
    """Call a block for each layer of stacked parameters, as a model does."""
    piece = policy.region(function)
    for part in tree.unstack(params):
        x = piece(part, x)
    return x.square().sum()


def start():
    return {"w": torch.linspace(-1, 1, 12).view(3, 2, 2), "b": torch.linspace(0, 1, 6).view(3, 2)}, torch.ones(4, 2)


def same(found, expected):
    assert tree.paths(found) == tree.paths(expected)
    for a, b in zip(tree.leaves(found), tree.leaves(expected), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def graphs(function, *args):
    """Trace a function by blocks and return its plan and the names of its pieces."""
    traced = _traced(function, _Given(*tree.flatten(args)), True, lambda text: None)
    return traced.plan, sorted(traced.graphs)


TABLE = torch.arange(20.0).view(10, 2)


def plain(params, x):
    return (x @ params["w"] + params["b"]).tanh()


def holding(params, x):
    return x @ params["w"] + TABLE[3:7]


def in_place(params, x):
    y = x @ params["w"]
    y[1] = 0
    y.mul_(params["b"])
    return y.tanh()


def turned(params, x):
    return (params["w"].t() @ x.t()).t() * params["b"]


BLOCKS = [plain, holding, in_place, turned]


@pytest.mark.parametrize("block", BLOCKS)
def test_values_and_gradients_are_those_of_the_function(block):
    """Compiles four pieces: the block forwards and backwards, and what lies around it."""
    params, x = start()
    function = torch.func.grad_and_value(lambda p, x: loop(block, p, x), argnums=(0, 1))
    program = compile_function(function, params, x, blocks=True)
    same(program(params, x), function(params, x))
    other = tree.map(lambda leaf: leaf * 0.7, params)
    same(program(other, x), function(other, x))


def test_a_block_is_compiled_once_however_often_it_is_called():
    params, x = start()
    plan, pieces = graphs(torch.func.grad(lambda p, x: loop(plain, p, x), argnums=(0, 1)), params, x)  # type: ignore[misc]
    assert [name for name in pieces if name.startswith("block")] == ["block0", "block0b"]
    called = [entry.piece for entry in plan.calls if hasattr(entry, "piece")]
    assert (called.count("block0"), called.count("block0b")) == (3, 3)


def test_blocks_that_differ_are_compiled_apart():
    def function(x):
        piece = policy.region(lambda y, factor: y * factor)
        return piece(x, 2) + piece(x, 2.0) + piece(x, 3) + piece(x[:1], 2) + piece(x, 2)

    _, pieces = graphs(function, torch.ones(3))
    assert len([name for name in pieces if name.startswith("block")]) == 4


def test_rematerialising_keeps_inputs_alone_and_the_gradients():
    """Compiles three pieces."""
    params, x = start()

    def function(p, x):
        with policy.using(rematerialise=True):
            return torch.func.grad(lambda p, x: loop(plain, p, x), argnums=(0, 1))(p, x)

    program = compile_function(function, params, x, blocks=True)
    same(program(params, x), torch.func.grad(lambda p, x: loop(plain, p, x), argnums=(0, 1))(params, x))
    plan, _ = graphs(function, params, x)
    kept = [len(entry.results) for entry in plan.calls if getattr(entry, "piece", "") == "block0"]
    assert kept == [1, 1, 1]


def test_a_second_derivative_through_a_block_is_refused_and_one_of_transforms_is_inline():
    def squared_slope(x):
        y = policy.region(torch.sin)(x).sum()
        (slope,) = torch.autograd.grad(y, x, create_graph=True)
        return slope.square().sum()

    with pytest.raises(RuntimeError, match="a compiled block has no second derivative; take --compile step or none"):
        graphs(torch.func.grad(squared_slope), torch.ones(3))

    def curvature(x):
        return torch.func.grad(lambda x: torch.func.grad(lambda x: policy.region(torch.sin)(x).sum())(x).sum())(x)

    assert graphs(curvature, torch.ones(3))[1] == ["piece0"]


def test_nothing_is_left_behind_by_a_trace_that_ends_early():
    def function(x):
        policy.region(torch.sin)(x)
        raise ValueError("in the middle")

    before = policy.current()
    with pytest.raises(ValueError, match="in the middle"):
        compile_function(function, torch.ones(3), blocks=True)
    assert not regions._TRACED
    assert policy.current() == before


def test_what_a_block_gives_back_of_its_inputs_is_read_before_they_are_overwritten():
    """Compiles three pieces. A second use of what is traced: the copy into the state waits for the last block, too."""

    def block(w, x):
        return {"same": w, "view": w[0], "made": (w * x).sin(), "count": torch.arange(2), "none": (w > x)}

    def update(state, batch):
        y = policy.region(block)(state["w"], batch * 2)
        return {"w": state["w"] * 0.5 + y["view"]}, y

    def fresh():
        return {"w": torch.tensor([1.0, 2.0, 3.0])}

    state, batch = fresh(), torch.ones(3)
    program = compile_step(update, state, batch, blocks=True)
    expected, wanted = update(fresh(), batch)
    same(program(state, batch), wanted)
    same(state, expected)


def test_outputs_and_leaves_that_no_gradient_reaches():
    """Compiles two pieces."""
    block = policy.region(lambda w, unused, x: {"hit": w > x, "free": x * 3})

    def loss(params, x):
        y = block(params["w"], params["unused"], x)
        return (y["free"] * params["w"]).sum() + y["hit"].sum()

    params, x = {"w": torch.ones(3), "unused": torch.ones(2)}, torch.zeros(3)
    function = torch.func.grad(loss)
    same(compile_function(function, params, x, blocks=True)(params, x), function(params, x))
