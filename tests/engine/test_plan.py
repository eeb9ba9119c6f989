"""Plans: cut where the regions are, run as they are written, and large stacks filled in place."""

import pytest
import torch

from craft import grad, policy, tree
from craft.engine import compile_function, compile_step, cut
from craft.engine.plan import Call, Empty, View
from craft.engine.program import _Given, _traced
from craft.types import Context


def traced(function, *args, blocks=True):
    return _traced(function, _Given(*tree.flatten(args)), blocks, lambda text: None)


def loss(params, batch, ctx):
    piece = policy.region(lambda part, x: (x @ part["w"] + part["b"]).tanh())
    x = batch * params["first"]  # as an embedding: with it, all blocks have the same gradients to make
    for part in tree.unstack(params["blocks"]):
        x = piece(part, x)
    return x.square().mean(), {}


def start(dtype=torch.float32):
    blocks = {"w": torch.linspace(-1, 1, 27).view(3, 3, 3), "b": torch.linspace(0, 1, 9).view(3, 3)}
    params = {"blocks": blocks, "first": torch.tensor([0.5, 1.0, 2.0])}
    return tree.map(lambda leaf: leaf.to(dtype), params), torch.linspace(-1, 1, 12).view(4, 3)


def sharp(params, batch):
    """Two gradients in one program: two stacks that the same backward writes."""
    return grad.sharpness(grad.reverse(loss), 0.1)(params, batch, Context())[0]


def simple(params, batch):
    return grad.reverse(loss)(params, batch, Context())[0]


@pytest.mark.parametrize("function", [simple, sharp])
def test_large_stacks_are_filled_in_place_with_the_same_numbers(function, monkeypatch):
    """Compiles the blocks forwards and backwards, and what lies around them."""
    args = start()
    assert not any(isinstance(entry, Empty) for entry in traced(function, *args).plan.calls)
    monkeypatch.setattr(cut, "_WORTH", 0)
    plan = traced(function, *args).plan
    buffers = [entry for entry in plan.calls if isinstance(entry, Empty)]
    slices = [entry for entry in plan.calls if isinstance(entry, View)]
    stacks = 2 if function is simple else 4
    assert (len(buffers), len(slices)) == (stacks, 3 * stacks)
    program = compile_function(function, *args, blocks=True, keep=False)
    for _ in range(2):
        for found, expected in zip(tree.leaves(program(*args)), tree.leaves(function(*args)), strict=True):
            assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_what_nothing_needs_any_more_is_let_go():
    plan = traced(simple, *start()).plan
    standing = len(plan.views) + plan.inputs
    alive: set[int] = set()
    for entry in plan.calls:
        assert isinstance(entry, Call)
        assert {i for i in entry.arguments if i >= standing} <= alive
        alive |= set(entry.results)
        alive -= set(entry.drop)
    assert alive == set(plan.outputs)


def test_each_piece_comes_after_what_it_needs_and_no_input_is_written_before_it_is_read():
    """The place of a copy: without a stage of its own it would be the first one here, before the region."""

    def update(state, batch):
        y = policy.region(lambda w, x: (w * x).sin())(state["w"], batch * 2)
        return {"w": state["w"] * 0.5}, {"y": y}

    state, batch = {"w": torch.ones(3)}, torch.ones(3)
    program = compile_step(update, state, batch, blocks=True)
    for turn in range(3):
        assert torch.allclose(program(state, batch)["y"], torch.full((3,), 2 * 0.5**turn).sin())


def test_views_of_inputs_follow_the_inputs():
    """Compiles one piece. Made once for a state that stays, anew for another, and for one whose memory is exchanged."""

    def function(x, y):
        return x[1] * 2 + y.t()[0], x.t()

    x, y = torch.arange(6.0).view(2, 3), torch.ones(3, 2)
    program = compile_function(function, x, y)

    def right(*args):
        return all(torch.equal(a, b) for a, b in zip(program(*args), function(*args), strict=True))

    assert right(x, y)
    x.add_(1)
    assert right(x, y)
    assert right(x + 1, y)
    assert right(x, y * 3)
    x.data = torch.full((2, 3), 7.0)
    assert right(x, y)


def test_outputs_that_are_inputs_or_come_twice_or_depend_on_nothing():
    """Compiles one piece."""

    def function(x):
        y = x + 1
        return {"x": x, "y": y, "again": y, "row": x[0], "wide": x[0].expand(2, 2), "constant": torch.arange(3), "none": None}

    x = torch.ones(2, 2)
    for args in (x, x * 3):
        found, expected = compile_function(function, x)(args), function(args)
        assert tree.paths(found) == tree.paths(expected)
        assert all(torch.equal(a, b) for a, b in zip(tree.leaves(found), tree.leaves(expected), strict=True))


def test_a_function_without_outputs_is_empty():
    assert compile_function(lambda x: (), torch.ones(2))(torch.ones(2)) == ()
