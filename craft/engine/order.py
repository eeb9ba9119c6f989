"""Order: long pieces are arranged so that little lives at once, and cut where little has to be handed on."""

from __future__ import annotations

import operator
from typing import cast

import torch
from torch import fx

from craft.types import Tensor

__all__ = ["COPY", "VIEWS", "WIDEN", "first", "grouped", "in_parts", "origin", "widens"]

VIEWS = {
    torch.ops.aten.select.int: "select",
    torch.ops.aten.unsqueeze.default: "unsqueeze",
    torch.ops.aten.view.default: "view",
    torch.ops.aten.permute.default: "permute",
    torch.ops.aten.t.default: "t",
    torch.ops.aten.transpose.int: "transpose",
    torch.ops.aten.slice.Tensor: "slice",
    torch.ops.aten.alias.default: "alias",
    torch.ops.aten.detach.default: "detach",
}
"""Operations that look at a value in another shape, with their names in a plan."""
_LONGEST = 1200
"""Operations of one piece: the C++ compiler takes about twenty seconds for as many."""
COPY = torch.ops.aten.copy_.default
"""What writes into an input, at the end of a program."""
WIDEN = torch.ops.prims.convert_element_type.default
"""What changes the type of numbers, mostly to a wider one."""


def grouped(members: list[fx.Node]) -> list[fx.Node]:
    """Order a long piece so that what belongs together is done together: all of one leaf's update before the next leaf's.

    A step is written operation by operation over all leaves, and would hold an intermediate of each at once. What is
    written into an input comes after everything that reads it.
    """
    if len(members) <= _LONGEST:
        return members
    inside = set(members)
    needs = {node: [source for source in node.all_input_nodes if source in inside] for node in members}
    readers: dict[fx.Node, list[fx.Node]] = {}
    for node in members:
        for source in node.all_input_nodes:
            readers.setdefault(origin(source), []).append(node)
    ends = [node for node in members if not any(user in inside for user in node.users)]
    for node in ends:
        if node.target is COPY:
            needs[node] += [reader for reader in readers.get(origin(node.all_input_nodes[0]), ()) if reader is not node]
    left = {end: _before(end, needs) for end in ends}
    ordered: dict[fx.Node, None] = {}
    place = {node: i for i, node in enumerate(members)}
    while left:
        end = min(left, key=lambda node: len(left[node]))
        ordered.update(dict.fromkeys(sorted(left.pop(end), key=place.__getitem__)))
        for rest in left.values():
            rest.difference_update(ordered)
    return list(ordered)


def first(node: fx.Node) -> fx.Node:
    """Return the node that a node takes first; the trace has put one there, which the type of an argument does not say."""
    return cast("fx.Node", node.args[0])


def widens(node: fx.Node) -> bool:
    """Tell whether a node does nothing but widen numbers."""
    if node.target is not WIDEN:
        return False
    return bool(first(node).meta["val"].dtype.itemsize < node.meta["val"].dtype.itemsize)


def origin(node: fx.Node) -> fx.Node:
    """Follow views back to what they look at."""
    while node.target in VIEWS or node.target in (torch.ops.aten.unbind.int, operator.getitem):
        node = first(node)
    return node


def _before(end: fx.Node, needs: dict[fx.Node, list[fx.Node]]) -> set[fx.Node]:
    """Return a node and all that has to be done before it."""
    found, waiting = {end}, [end]
    while waiting:
        for source in needs[waiting.pop()]:
            if source not in found:
                found.add(source)
                waiting.append(source)
    return found


def in_parts(members: list[fx.Node], free: set[fx.Node]) -> list[list[fx.Node]]:
    """Cut a long piece into parts that are built side by side, where the least has to be handed from one to the next."""
    number = -(-len(members) // _LONGEST)
    if number < 2:
        return [members] if members else []
    place = {node: i for i, node in enumerate(members)}
    crossing = [0] * (len(members) + 1)
    for i, node in enumerate(members):
        last = max((place.get(user, i) for user in node.users), default=i)
        size = node.meta["val"].nbytes if isinstance(node.meta.get("val"), Tensor) else 1 << 60  # only tensors can cross
        for between in range(i + 1, last + 1 if node not in free else 0):
            crossing[between] += size
    even, spread = len(members) / number, len(members) // (4 * number)
    cuts = [0]
    for k in range(1, number):
        middle = round(k * even)
        cuts.append(min(range(middle - spread, middle + spread + 1), key=lambda at: crossing[at]))
    return [members[start:end] for start, end in zip(cuts, [*cuts[1:], len(members)], strict=True)]
