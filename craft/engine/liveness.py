"""How much memory a graph needs while it runs, and how much it computes, told from the graph alone.

A compiler fuses what is computed element by element into one pass: such a value has memory of its own only where a product,
a concatenation or the caller takes it. What dies at the pass that reads it last makes room for an equal result of that pass.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import fx
from torch.utils.flop_counter import flop_registry

from craft.types import Tensor

__all__ = ["Work", "add", "examine", "room", "work_of"]

_VIEWS = {
    "view", "reshape", "permute", "t", "transpose", "slice", "select", "unsqueeze", "squeeze", "expand", "alias", "detach",
    "split", "split_with_sizes", "unbind", "as_strided", "_unsafe_view", "lift_fresh_copy", "diagonal",
}  # fmt: skip
_WHOLE = {"cat", "mm", "bmm", "addmm", "baddbmm", "scatter_add", "index_put", "scatter", "embedding_dense_backward", "sort"}
"""Operations that read and write memory of their own, whatever stands beside them."""


class Work(NamedTuple):
    """What a program does in one call.

    Attributes
    ----------
    narrow, wide
        Floating-point operations of products in 16 bits, and in 32 or more.
    batched
        How many of them are in batches of small matrices.
    moved
        Bytes that are read and written outside products.
    calls
        Passes over memory: products, and everything else that is not fused.
    """

    narrow: float = 0.0
    wide: float = 0.0
    batched: float = 0.0
    moved: float = 0.0
    calls: int = 0


def add(parts: Iterable[Work]) -> Work:
    """Sum the work of several programs."""
    return Work(*(sum(column) for column in zip(Work(), *parts, strict=True)))


def work_of(function: Any, arguments: Any, results: Any, moved: float) -> Work:
    """Return the work of one operation.

    Parameters
    ----------
    function
        An overload, such as `torch.ops.aten.mm.default`.
    arguments, results
        Tensors that it takes and returns, with or without content.
    moved
        Bytes that it reads and writes where it is no product.
    """
    packet = getattr(function, "overloadpacket", None)
    if getattr(function, "_name", "") == "craft::judge_chunks":
        x, weight, *_, wanted, _ = arguments
        products = (3 if wanted else 1) * 2.0 * x.shape[0] * weight.numel()
        narrow = x.itemsize < 4
        return Work(
            products * narrow, products * (not narrow), 0.0, x.shape[0] * weight.shape[1] * (20.0 if wanted else 8.0), 8
        )
    if packet not in flop_registry:
        return Work(moved=moved, calls=1)
    flops = float(flop_registry[packet](*arguments, out_val=results))
    first = next(value for value in arguments if isinstance(value, Tensor))
    narrow = first.itemsize < 4
    return Work(flops * narrow, flops * (not narrow), flops * (first.ndim > 2), 0.0, 1)


def room(function: Any, arguments: Any) -> int:
    """Return the bytes that an operation of Craft's own needs beside what it returns."""
    if getattr(function, "_name", "") != "craft::judge_chunks":
        return 0
    x, weight, *_, wanted, number = arguments
    chunk = -(-x.shape[0] // number) * weight.shape[1]
    summed = weight.numel() * 4 if wanted else 0
    needed: int = weight.numel() * x.itemsize + 2 * 4 * chunk + chunk * x.itemsize * 2 + summed
    return needed


class Examined(NamedTuple):
    """What was found out about a graph.

    Attributes
    ----------
    peak
        Most bytes at any time, of what it makes itself, its results included.
    results
        Bytes of its results.
    work
        What it computes.
    """

    peak: int
    results: int
    work: Work


def examine(graph: fx.GraphModule) -> Examined:
    """Walk a graph whose nodes carry tensors without content in `meta["val"]`."""
    return _Walk(graph).go()


def _name(node: fx.Node) -> str:
    packet = getattr(node.target, "overloadpacket", None)
    return getattr(packet, "__name__", "")


def _size(node: fx.Node) -> int:
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return sum(each.nbytes for each in values if isinstance(each, Tensor))


class _Walk:
    def __init__(self, graph: fx.GraphModule) -> None:
        (self.output,) = graph.graph.find_nodes(op="output")
        self.nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
        self.owner: dict[fx.Node, fx.Node] = {}
        """Whose memory a node is, for views."""
        for node in graph.graph.nodes:
            view = node.op == "call_function" and (_name(node) in _VIEWS or node.target is operator.getitem)
            sources = node.all_input_nodes
            self.owner[node] = self.owner[sources[0]] if view and sources else node
        self.made = self._materialised()

    def _materialised(self) -> set[fx.Node]:
        """Find what has memory of its own."""
        taken = {self.owner[node] for node in self.output.all_input_nodes}
        for node in self.nodes:
            if self._whole(node) and _name(node) != "cat":
                taken |= {self.owner[source] for source in node.all_input_nodes}
        return {
            node
            for node in self.nodes
            if self.owner[node] is node and (node in taken or self._whole(node) or self._reduces(node))
            if _name(node) != "copy_"
        }

    def _whole(self, node: fx.Node) -> bool:
        return _name(node) in _WHOLE or str(node.target).startswith("craft.")

    def _reduces(self, node: fx.Node) -> bool:
        value = node.meta.get("val")
        first = next((source.meta.get("val") for source in node.all_input_nodes), None)
        if not isinstance(value, Tensor) or not isinstance(first, Tensor):
            return False
        return value.numel() < first.numel() and _name(node) not in _VIEWS

    def _sources(self) -> dict[fx.Node, set[fx.Node]]:
        """Return what each node reads of what has memory, through all that is fused into it."""
        read: dict[fx.Node, set[fx.Node]] = {}
        for node in self.nodes:
            found: set[fx.Node] = set()
            for source in node.all_input_nodes:
                owner = self.owner[source]
                found |= {owner} if owner in self.made or owner.op != "call_function" else read[owner]
            read[node] = found
        return read

    def go(self) -> Examined:
        read = self._sources()
        passes = [node for node in self.nodes if node in self.made or _name(node) == "copy_"]
        kept = {self.owner[node] for node in self.output.all_input_nodes}
        last: dict[fx.Node, int] = {}
        for place, node in enumerate(passes):
            last.update(dict.fromkeys(read[node], place))
        live, peak, parts = 0, 0, []
        for place, node in enumerate(passes):
            size = _size(node) if node in self.made else 0
            dying = [source for source in read[node] if source in self.made and last[source] == place and source not in kept]
            reused = size if not self._whole(node) and any(_size(source) == size for source in dying) else 0
            live += size
            peak = max(peak, live - reused + room(node.target, [_value(argument) for argument in node.args]))
            live -= sum(_size(source) for source in dying)
            if place not in last.values() and node not in last and node not in kept:
                live -= size  # nothing reads it
            moved = size + sum(_size(source) for source in read[node])
            arguments = [_value(argument) for argument in node.args]
            parts.append(work_of(node.target, arguments, node.meta.get("val"), float(moved)))
        results = sum(_size(node) for node in kept if node in self.made)
        return Examined(max(peak, results), results, add(parts))


def _value(argument: Any) -> Any:
    return argument.meta.get("val") if isinstance(argument, fx.Node) else argument
