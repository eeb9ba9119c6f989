"""Slabs: the update of a large leaf, done part after part along its first axis.

What a step computes of a leaf and writes into it, number by number or row by row, needs room for its intermediates: as large
as the leaf where all of it is done at once, as large as a part where it is done part after part. All parts, and all leaves of
a shape, are done by one compiled piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import fx
from torch.fx.node import map_arg

from craft.engine.order import COPY, WIDEN, first, origin, widens
from craft.types import Tensor

__all__ = ["Slab", "find_slabs", "signature"]

_LEAF = 1 << 23
"""Bytes of a leaf that is worth it."""
_PART = 1 << 21
"""Fewest bytes of a part."""
_SHAPED = {torch.ops.aten.view.default, torch.ops.aten.reshape.default, torch.ops.aten._unsafe_view.default}
_ROWS = {torch.ops.aten.amax.default, torch.ops.aten.amin.default, torch.ops.aten.sum.dim_IntList}
_CLONE = torch.ops.aten.clone.default
_PLAIN = {_CLONE, torch.ops.aten.alias.default, WIDEN, COPY}


class Slab(NamedTuple):
    """An update of some leaves that belong together.

    Attributes
    ----------
    nodes
        What it computes, in order; nothing outside needs it.
    parts
        Into how many parts it is cut.
    cut
        What it takes part by part.
    whole
        Numbers that every part takes.
    graph
        What is done for one part: (parts of `cut`, `whole`) -> nothing; it overwrites what it takes.
    """

    nodes: list[fx.Node]
    parts: int
    cut: list[fx.Node]
    whole: list[fx.Node]
    graph: fx.GraphModule


def find_slabs(members: list[fx.Node], outside: Callable[[fx.Node], bool]) -> list[Slab]:
    """Find what of a piece can be done part by part.

    Parameters
    ----------
    members
        Nodes of the piece, in order.
    outside
        Tells of a node whether it is an input of the program or a view of one.

    Returns
    -------
    Slabs, which may be done in any order after the rest of the piece.
    """
    ends = [node for node in members if node.target is COPY and first(node).op == "placeholder"]
    if not ends:
        return []
    writers = {first(node): node for node in ends}
    local = _local(members, writers)
    again = {each for node in local for source in node.all_input_nodes for each in _again(source, outside)}
    slabs = [_slab(nodes, writers, outside) for nodes in _components(local | again, ends[0].graph)]
    return [slab for slab in slabs if slab is not None]


def _value(node: fx.Node) -> Any:
    return node.meta.get("val")


def _large(node: fx.Node) -> bool:
    value = _value(node)
    return isinstance(value, Tensor) and value.numel() > 1


def _local(members: list[fx.Node], writers: dict[Any, fx.Node]) -> set[fx.Node]:
    """Return the nodes that lead to what is overwritten and nowhere else, and compute each row from the same row."""
    inside: set[fx.Node] = set()
    for node in reversed(members):
        ends = node.target is COPY and node.args[0] in writers
        leads = bool(node.users) and all(user in inside for user in node.users)
        # a number that is overwritten may be so already when the slab's turn comes
        stale = any(origin(source) in writers and not _large(source) for source in node.all_input_nodes)
        if (ends or leads) and _large(node) and _by_rows(node) and not stale:
            inside.add(node)
    return inside


def _again(node: fx.Node, outside: Callable[[fx.Node], bool]) -> list[fx.Node]:
    """Return what a slab does for itself although others do it too.

    That is looking at inputs, widening what it is handed, and adding what it has widened: a gradient that has two sources is
    never written in full.
    """
    if node.op != "call_function" or not _large(node) or not _by_rows(node):
        return []
    if outside(node) or widens(node):
        return [node, *_again(first(node), outside)]
    if node.target is torch.ops.aten.add.Tensor and all(widens(source) for source in node.all_input_nodes):
        return [node, *(each for source in node.all_input_nodes for each in _again(source, outside))]
    return []


def _by_rows(node: fx.Node) -> bool:
    """Tell whether each row of the result, along the first axis, comes from the same row of what is taken, or part of rows."""
    value = _value(node)
    if node.target in _SHAPED or node.target in _PLAIN:
        return True
    if node.target is torch.ops.aten.unsqueeze.default:
        return bool(node.args[1] % value.ndim != 0)
    large = [_value(source) for source in node.all_input_nodes if _large(source)]
    if node.target in _ROWS:
        axes: Any = node.args[1] if len(node.args) > 1 else ()
        return bool(axes) and all(axis % large[0].ndim != 0 for axis in axes)
    if torch.Tag.pointwise not in getattr(node.target, "tags", ()) or not large:
        return False
    return all(source.ndim == value.ndim and source.shape[0] == value.shape[0] for source in large)


def _components(inside: set[fx.Node], graph: fx.Graph) -> list[list[fx.Node]]:
    """Group nodes that are linked by what they compute or by a large value that they take."""
    root: dict[fx.Node, fx.Node] = {}

    def find(node: fx.Node) -> fx.Node:
        while root.setdefault(node, node) is not node:
            node = root[node]
        return node

    ordered = [node for node in graph.nodes if node in inside]
    for node in ordered:
        for source in node.all_input_nodes:
            if _large(source):
                root[find(source)] = find(node)
    groups: dict[fx.Node, list[fx.Node]] = {}
    for node in ordered:
        groups.setdefault(find(node), []).append(node)
    return list(groups.values())


def _slab(nodes: list[fx.Node], writers: dict[Any, fx.Node], outside: Callable[[fx.Node], bool]) -> Slab | None:
    within = set(nodes)
    taken = list(dict.fromkeys(source for node in nodes for source in node.all_input_nodes if source not in within))
    cut, whole = [node for node in taken if _large(node)], [node for node in taken if not _large(node)]
    leaves = [node for node in cut if node in writers]
    if not leaves or max(_value(node).nbytes for node in leaves) < _LEAF:
        return None
    if any(writers[node] not in within for node in leaves):
        return None  # it may have been overwritten when the slab's turn comes
    if any(outside(node) and (node.op != "placeholder" or not _value(node).is_contiguous()) for node in cut):
        return None
    parts = _parts([_value(node) for node in (*cut, *nodes)])
    graph = _graph(nodes, cut, whole, parts) if parts > 1 else None
    return None if graph is None else Slab(nodes, parts, [_in_order(node, within) for node in cut], whole, graph)


def _in_order(node: fx.Node, users: set[fx.Node]) -> fx.Node:
    """Return a value whose parts lie one after the other: itself, or what its users take from now on."""
    if _value(node).is_contiguous():
        return node
    with node.graph.inserting_after(node):
        turned = node.graph.call_function(_CLONE, (node,), {"memory_format": torch.contiguous_format})
    turned.meta["val"] = _value(node).contiguous()
    node.replace_all_uses_with(turned, delete_user_cb=users.__contains__)
    return turned


def _parts(values: list[Tensor]) -> int:
    """Return the largest number of equal parts that are not too small."""
    common = math.gcd(*(value.shape[0] for value in values))
    most = max(value.nbytes for value in values) // _PART
    return max((n for n in range(1, min(common, most) + 1) if common % n == 0), default=1)


def _graph(nodes: list[fx.Node], cut: list[fx.Node], whole: list[fx.Node], parts: int) -> fx.GraphModule | None:
    """Write what is done for one part; none if a shape turns out to be no part of the whole's."""
    new = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for number, node in enumerate([*cut, *whole]):
        value = _value(node)
        copied[node] = new.placeholder(f"in{number}")
        copied[node].meta["val"] = value[: value.shape[0] // parts].contiguous() if number < len(cut) else value
    for node in nodes:
        target: Any = node.target
        given: Any = map_arg((_shrunk(node, parts), node.kwargs), copied.__getitem__)
        made = new.call_function(target, *given)
        arguments: Any = map_arg(given, _value)
        made.meta["val"] = target(*arguments[0], **arguments[1])
        length, *rest = _value(node).shape
        if list(made.meta["val"].shape) != [length // parts, *rest]:
            return None
        copied[node] = made
    new.output([])
    return fx.GraphModule(torch.nn.Module(), new)


def _shrunk(node: fx.Node, parts: int) -> tuple[Any, ...]:
    """Return the arguments of a node, with the first length of a shape divided."""
    if node.target not in _SHAPED:
        return node.args
    source, shape, *more = node.args
    first, *rest = cast("list[int]", shape)
    return source, [first // parts if first > 0 else first, *rest], *more


def signature(graph: fx.GraphModule) -> str:
    """Return a text that is the same for graphs that compute the same."""
    numbers = {node: f"%{i}" for i, node in enumerate(graph.graph.nodes)}
    lines = []
    for node in graph.graph.nodes:
        value = _value(node)
        form = (tuple(value.shape), value.stride(), value.dtype, value.device) if isinstance(value, Tensor) else ()
        lines.append(f"{node.op} {node.target} {map_arg((node.args, node.kwargs), numbers.__getitem__)} {form}")
    return "\n".join(lines)
