"""Slabs: updates that are done part by part are the updates, and what cannot be done so is not."""

from typing import Any

import pytest
import torch

from craft import optim, param, step, tree
from craft.engine import compile_step, slabs
from craft.engine.plan import Call
from craft.engine.program import trace_step
from craft.param import Normal, Param

SPEC = {
    "one": Param((6, 8, 64), Normal(0.1), ("L", "D", "F"), layers=6),
    "two": Param((6, 8, 64), Normal(0.1), ("L", "D", "F"), layers=6),
    "wide": Param((8, 1024), Normal(0.1), ("D", "F")),
    "small": Param((6, 8), Normal(0.1), ("L", "D"), layers=6),
}


@pytest.fixture(autouse=True)
def low(monkeypatch):
    """Take leaves of 8 kB for large ones, and parts of 2 kB."""
    monkeypatch.setattr(slabs, "_LEAF", 1 << 13)
    monkeypatch.setattr(slabs, "_PART", 1 << 11)


def pull(params: Any, batch: Any, ctx: Any) -> Any:
    """Return gradients that pull towards a batch."""
    grads = tree.map(lambda leaf: leaf - batch, params)
    return grads, {"loss": sum(leaf.square().mean() for leaf in tree.leaves(grads))}


RECIPES: dict[str, Any] = {
    "adamw": optim.AdamW(clip=0.5),
    "adamw in 8 bits": optim.AdamW(clip=0.5, bits=8),
    "adamw and an average": optim.AdamW(average=0.9),
    "lion in 8 bits": optim.Lion(bits=8),
    "sgd": optim.SGD(nesterov=True, decay=0.1),
    "muon": optim.Muon(),
}


@pytest.mark.parametrize("name", RECIPES)
def test_updates_in_parts_are_the_updates(name):
    """Compiles one step: the rest, and a piece for each shape of a large leaf."""
    transform = RECIPES[name].build(SPEC, 0.1)
    update = step.build(pull, transform)
    state = step.start(param.materialise(SPEC, 0), transform, steps=9)
    expected, batch = tree.map(torch.clone, state), torch.tensor(0.05)
    plan, pieces = trace_step(update, state, batch, blocks=False)
    called = [entry.piece for entry in plan.calls if isinstance(entry, Call)]
    assert called[0] == "piece0"
    shared = {"piece1": 12, "piece2": 8}
    if name == "muon":  # a direction is no matter of rows: what comes before it and after it is; a wide one's lies turned
        shared = {"piece1": 12, "piece2": 12, "piece3": 8}
    assert {piece: called.count(piece) for piece in dict.fromkeys(called[1:])} == shared
    assert len(pieces) == 1 + len(shared)
    program = compile_step(update, state, batch)
    for _ in range(3):
        expected, wanted = update(expected, batch)
        metrics = program(state, batch)
        assert torch.allclose(metrics["loss"], wanted["loss"], rtol=1e-5)
    for (path, found), right in zip(tree.named(state).items(), tree.leaves(expected), strict=True):
        if found.dtype in (torch.int8, torch.uint8):  # a rounding may fall to the other side
            assert (found.int() - right.int()).abs().max() <= 2, path
        else:
            assert torch.allclose(found, right, rtol=1e-3, atol=2e-5), path


def test_a_step_that_is_not_finite_leaves_the_parts_alone():
    """Compiles one step."""
    transform = optim.AdamW(clip=0.0).build(SPEC, 0.1)
    update = step.build(pull, transform)
    state = step.start(param.materialise(SPEC, 0), transform, steps=9)
    kept = tree.map(torch.clone, (state.params, state.opt))
    compile_step(update, state, torch.tensor(0.0))(state, torch.tensor(float("nan")))
    assert bool(state.halted)
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(kept), tree.leaves((state.params, state.opt)), strict=True))


def start():
    value = torch.linspace(-1, 1, 6 * 512).view(6, 512)
    return {"here": value, "there": value.flip(0).contiguous(), "count": torch.tensor(1.0)}


def by_count(state, batch):
    """Read a number that is overwritten."""
    return {"here": state["here"] * state["count"] + batch, "there": state["there"], "count": state["count"] + 1}, {}


def by_corner(state, batch):
    """Read one number of a large leaf that is overwritten, and a look at another."""
    corner, count = state["here"][0, 0], state["count"][None]
    return {"here": state["here"] * corner + batch, "there": state["there"] * count, "count": state["count"] + 1}, {}


def swapped(state, batch):
    """Read large leaves that are overwritten by each other."""
    return {"here": state["there"] + batch, "there": state["here"] * 2, "count": state["count"]}, {}


def turned(state, batch):
    """Read other rows than are written."""
    return {"here": state["here"].flip(0) + batch, "there": state["there"].cumsum(0), "count": state["count"]}, {}


def over_rows(state, batch):
    """Read all rows."""
    mean, top = state["here"].mean(0, keepdim=True), state["there"].amax(0)
    return {"here": state["here"] - mean, "there": state["there"] * top + batch, "count": state["count"]}, {}


def told(state, batch):
    """Return what a part computes."""
    new = state["here"] * batch
    return {"here": new, "there": state["there"] - new.sum(), "count": state["count"]}, {"sum": new.sum(1)}


def of_two(state, batch):
    """Add two narrow values, and let both the slab and the rest of the step use the sum."""
    coarse = (state["there"] * 8).round() / 8  # exact in 16 bits, which compiled code may leave out between two operations
    total = (coarse * batch).bfloat16().float() + (coarse + batch).bfloat16().float()
    norm = total.square().sum().sqrt()
    return {"here": state["here"] - total / norm, "there": state["there"], "count": state["count"]}, {"norm": norm}


@pytest.mark.parametrize("update", [by_count, by_corner, swapped, turned, over_rows, told, of_two])
def test_what_is_read_is_read_before_it_is_overwritten(update):
    """Compiles one step."""
    state, expected, batch = start(), start(), torch.tensor(0.25)
    program = compile_step(update, state, batch)
    for _ in range(3):
        expected, wanted = update(expected, batch)
        metrics = program(state, batch)
        for found, right in zip(tree.leaves((state, metrics)), tree.leaves((expected, wanted)), strict=True):
            assert torch.allclose(found, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shapes", "parts"), [([(12, 256)], 6), ([(12, 256), (18, 256)], 6), ([(7, 256)], 1), ([(1, 4096)], 1)]
)
def test_parts_are_equal_and_not_too_small(shapes, parts):
    assert slabs._parts([torch.empty(shape) for shape in shapes]) == parts


def test_the_sum_of_two_narrow_values_is_never_written_in_full():
    plan, pieces = trace_step(of_two, start(), torch.tensor(0.25), blocks=False)
    assert len({entry.piece for entry in plan.calls if isinstance(entry, Call)}) == len(pieces) == 2
    returned = [node.meta["val"] for node in pieces["piece0"].graph.output_node().args[0]]
    assert [(value.dtype, value.numel()) for value in returned] == [(torch.bfloat16, 3072)] * 2 + [(torch.float32, 1)]
