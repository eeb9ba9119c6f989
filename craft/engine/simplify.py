"""Simplifying: what a trace computes twice, or to no purpose, before the graph is cut. No bit of a result changes."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import fx

from craft.engine.order import VIEWS, WIDEN, first, widens
from craft.types import Tensor

__all__ = ["simplify"]


def simplify(graph: fx.GraphModule) -> None:
    """Take out factors of one, look at numbers before they are widened, and compute what is equal once.

    A gradient comes multiplied by the loss's own gradient, which is one; its norm is asked for by the clipping and by the
    report. What is widened last can be widened where it is used, instead of being written in full.

    Parameters
    ----------
    graph
        Graph of tensors without state, but for copies into its inputs at its end; changed in place.
    """
    from torch._functorch.compile_utils import fx_graph_cse

    for node in list(graph.graph.nodes):
        if node.op == "call_function":
            _drop_factor(node)
            _widen_last(node)
    graph.graph.eliminate_dead_code()
    graph.graph = fx_graph_cse(graph.graph)
    graph.recompile()


def _drop_factor(node: fx.Node) -> None:
    if node.target is not torch.ops.aten.mul.Tensor:
        return
    for kept, factor in (node.args, node.args[::-1]):
        if isinstance(kept, fx.Node) and _is_one(factor) and _same(kept, node):
            node.replace_all_uses_with(kept)
            return


def _is_one(factor: Any) -> bool:
    if not isinstance(factor, fx.Node):
        return bool(factor == 1)
    return factor.target is torch.ops.aten.full.default and bool(factor.args[1] == 1)


def _same(one: fx.Node, other: fx.Node) -> bool:
    a, b = one.meta["val"], other.meta["val"]
    return isinstance(a, Tensor) and (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


def _widen_last(node: fx.Node) -> None:
    """Put view(widen(x)) as widen(view(x))."""
    if node.target not in VIEWS or node.kwargs or not widens(first(node)):
        return
    widened, target = first(node), cast("Any", node.target)
    narrow: Any = first(widened).meta["val"]
    if narrow.stride() != widened.meta["val"].stride():
        return
    seen = target(narrow, *node.args[1:])
    value = WIDEN(seen, widened.args[1])
    if value.stride() != node.meta["val"].stride():  # part of something larger: widened, it lies elsewhere
        return
    with node.graph.inserting_before(node):
        look = node.graph.call_function(target, (first(widened), *node.args[1:]))
        last = node.graph.call_function(WIDEN, (look, widened.args[1]))
    look.meta["val"], last.meta["val"] = seen, value
    node.replace_all_uses_with(last)
