"""Parameters: seeds by name, counts, and trees without storage."""

from __future__ import annotations

import math

import pytest
import torch

from craft import param, tree
from craft.param import Constant, Normal, Param
from craft.types import Tree


def block() -> Tree:
    return {"in": Param((8, 16), param.scaled(8), ("D", "F")), "scale": Param((8,), Constant(1.0), ("D",), rate=0.5)}


def spec(depth: int) -> Tree:
    return {"blocks": [block() for _ in range(depth)], "embedding": Param((50, 8), Normal(0.02), ("V", "D"))}


def test_a_layer_that_is_added_moves_no_other_leaf() -> None:
    small, large = tree.named(param.materialise(spec(2), 7)), tree.named(param.materialise({**spec(3), "new": block()}, 7))
    assert all(torch.equal(leaf, large[path]) for path, leaf in small.items())
    assert len(large) == len(small) + 4


def test_leaves_and_seeds_differ_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, two = param.materialise(spec(2), 0), param.materialise(spec(2), 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(one["blocks"][0]["in"], one["blocks"][1]["in"])
    assert not torch.equal(one["embedding"], two["embedding"])
    assert torch.equal(one["embedding"], param.materialise(spec(2), 0)["embedding"])


def test_initialisers_fill_as_they_say() -> None:
    made = param.materialise({"w": Param((400, 250), param.scaled(400, gain=2.0), ("D", "F")), "c": block()["scale"]}, 0)
    assert made["w"].dtype == torch.float32
    assert abs(made["w"].mean()) < 5 * 0.1 / math.sqrt(100_000)
    assert made["w"].std() == pytest.approx(0.1, rel=0.01)
    assert torch.equal(made["c"], torch.ones(8))


def test_counts() -> None:
    assert param.count(spec(2)) == 2 * (8 * 16 + 8) + 50 * 8
    assert param.count(spec(2)) == tree.size(param.materialise(spec(2), 0))
    assert param.count(spec(2), without=["embedding"]) == 2 * (8 * 16 + 8)
    assert param.count(spec(2), without=["embedding", "blocks.1"]) == 8 * 16 + 8


def test_abstract_tensors_have_shape_and_no_storage() -> None:
    huge = {"w": Param((1 << 20, 1 << 20), Normal(1.0), ("D", "F")), **spec(1)}
    made = param.abstract(huge)
    assert made["w"].shape == (1 << 20, 1 << 20)
    assert all(leaf.device.type == "meta" and leaf.dtype == torch.float32 for leaf in tree.leaves(made))
    assert tree.paths(made) == tree.paths(huge)


def test_rates_and_decay_follow_the_spec() -> None:
    assert tree.named(param.rates(spec(1))) == {"blocks.0.in": 1.0, "blocks.0.scale": 0.5, "embedding": 1.0}
    assert tree.named(param.decayed(spec(1))) == {"blocks.0.in": True, "blocks.0.scale": False, "embedding": True}


def test_each_axis_has_a_name() -> None:
    assert Param([2, 3], Normal(1.0), ["D", "F"]).shape == (2, 3)
    with pytest.raises(ValueError, match="got 1 axis names"):
        Param((2, 3), Normal(1.0), ("D",))
