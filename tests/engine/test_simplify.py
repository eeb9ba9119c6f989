"""What is simplified gives the same bits, and what would lie elsewhere is left alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from craft.engine.lower import decompositions
from craft.engine.tracing import trace

NARROW = torch.linspace(-2, 2, 6 * 8).bfloat16().reshape(6, 8)
WIDEN = "prims.convert_element_type.default"


def traced(function: Callable[..., Any], *examples: torch.Tensor) -> Any:
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        given = [torch.empty_strided(x.shape, x.stride(), dtype=x.dtype) for x in examples]
        return trace(function, given, decompositions())[0]


def targets(graph: Any) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def factor_of_one(x: torch.Tensor) -> list[torch.Tensor]:
    return [x.float().exp() * torch.ones(()), torch.full((), 1.0) * x.float().sin(), x.float() * torch.full((), 1.5)]


def looked_at(x: torch.Tensor) -> list[torch.Tensor]:
    wide = x.float()
    return [wide.t() + 1, wide.view(3, 16) * 2, wide.unsqueeze(1).exp()]


def looked_at_turned(x: torch.Tensor) -> list[torch.Tensor]:
    """Look at what has no other view."""
    return [x.float().t() + 1, x.float().unsqueeze(1).exp()]


def part_of_it(x: torch.Tensor) -> list[torch.Tensor]:
    return [x.float()[:, 2:5] + 1]


def twice(x: torch.Tensor) -> list[torch.Tensor]:
    return [x.float().square().sum() + 1, x.float().square().sum().sqrt()]


@pytest.mark.parametrize("function", [factor_of_one, looked_at, part_of_it, twice])
@pytest.mark.parametrize("turned", [False, True])
def test_same_bits(function: Callable[..., Any], turned: bool) -> None:
    x = NARROW.reshape(8, 6).t() if turned else NARROW
    x = x.clone(memory_format=torch.preserve_format)
    x[0, 0] = torch.nan
    if turned and function is looked_at:
        function = looked_at_turned
    graph = traced(function, x)
    for found, right in zip(graph(x), function(x), strict=True):
        assert torch.equal(found.isnan(), right.isnan())
        assert torch.equal(found.nan_to_num(), right.nan_to_num())
    for node in graph.graph.nodes:  # what is said of a value is true of it
        if node.op != "call_function":
            continue
        made = node.target(*torch.fx.node.map_arg(node.args, lambda n: n.meta["val"]), **node.kwargs)
        assert (made.shape, made.stride(), made.dtype) == (node.meta["val"].shape, node.meta["val"].stride(), made.dtype)


def test_factors_of_one_are_dropped_and_no_others() -> None:
    assert targets(traced(factor_of_one, NARROW)).count("aten.mul.Tensor") == 1


def test_what_is_looked_at_is_widened_last() -> None:
    names = targets(traced(looked_at, NARROW))
    assert names[0] == "aten.permute.default"
    assert names[1] == WIDEN


def test_a_part_is_taken_of_what_is_widened() -> None:
    """Widened by itself it would have other strides."""
    names = targets(traced(part_of_it, NARROW))
    assert names.index(WIDEN) < names.index("aten.slice.Tensor")


def test_what_is_equal_is_computed_once() -> None:
    assert Counter(targets(traced(twice, NARROW)))["aten.sum.default"] == 1
