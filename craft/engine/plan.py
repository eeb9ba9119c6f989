"""Plans: what a program does, as a list of calls of compiled pieces. A plan is data, and is stored as JSON.

The graph of a step is cut at the calls of its regions: what lies between them goes into as few pieces as possible, each at
the latest of these places where it can be, so that nothing is computed long before it is used. A piece that comes again is
compiled once. Gradients of stacked blocks are written by each block's backward into its slice of one buffer.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import fx

from craft.engine import region
from craft.types import Tensor

__all__ = ["Call", "Empty", "Plan", "View", "make_plan"]

_VIEWS = {
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
_PACKETS = {name: getattr(torch.ops.aten, name) for name in _VIEWS.values()}


@attrs.frozen
class View:
    """Look at a value in another shape; nothing is computed."""

    source: int
    """Number of the value."""
    operation: str
    """Name of the operation."""
    arguments: list[Any]
    """Its further arguments."""
    result: int
    """Number of the new value."""


@attrs.frozen
class Empty:
    """Make a tensor that pieces write into."""

    shape: list[int]
    """Its shape."""
    dtype: str
    """Its type, as torch names it."""
    device: str
    """Its device."""
    result: int
    """Number of the new value."""


@attrs.frozen
class Call:
    """Run a piece."""

    piece: str
    """Name of the piece."""
    arguments: list[int]
    """Numbers of the values that it takes."""
    results: list[int]
    """Numbers of the values that it makes."""
    drop: list[int]
    """Values that nothing needs after it."""


@attrs.frozen
class Plan:
    """The calls of a program, in order."""

    inputs: int
    """Number of inputs; they are the first values."""
    values: int
    """Number of all values."""
    views: list[View]
    """Views of inputs, made first."""
    calls: list[Call | Empty | View]
    """What is done at every run."""
    outputs: list[int]
    """Values that are returned."""

    def bind(self, pieces: dict[str, Callable[[list[Tensor]], list[Tensor]]]) -> Callable[[Sequence[Tensor]], list[Tensor]]:
        """Make the program of loaded pieces."""
        return _Runner(self, pieces)


class _Runner:
    """A plan with its pieces."""

    def __init__(self, plan: Plan, pieces: dict[str, Callable[[list[Tensor]], list[Tensor]]]) -> None:
        self.plan = plan
        self.steps = [self._bound(entry, pieces) for entry in plan.calls]
        self.last: list[Tensor] = []
        self.seen: list[Tensor | None] = []

    def _bound(self, entry: Call | Empty | View, pieces: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
        if isinstance(entry, Call):
            return pieces[entry.piece], entry.arguments, entry.results, entry.drop
        if isinstance(entry, Empty):
            shape, dtype, device = entry.shape, getattr(torch, entry.dtype), torch.device(entry.device)
            return (lambda taken: [torch.empty(shape, dtype=dtype, device=device)]), [], [entry.result], []
        packet, more = _PACKETS[entry.operation], entry.arguments
        return (lambda taken: [packet(taken[0], *more)]), [entry.source], [entry.result], []

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        values = self._viewed(inputs)
        for run, taken, made, drop in self.steps:
            for place, value in zip(made, run([values[i] for i in taken]), strict=True):
                values[place] = value
            for i in drop:
                values[i] = None
        return [values[i] for i in self.plan.outputs]  # type: ignore[misc]

    def _viewed(self, inputs: Sequence[Tensor]) -> list[Tensor | None]:
        """Place the inputs and their views; the views of a state that is written over stay the same ones."""
        plan = self.plan
        known = len(self.last) == len(inputs)
        values: list[Tensor | None] = [*inputs, *([None] * (plan.values - plan.inputs))]
        for view in plan.views:
            source = view.source
            same = known and source < plan.inputs and self.last[source] is inputs[source]
            same = same or (known and source >= plan.inputs and values[source] is self.seen[source])
            if same:
                values[view.result] = self.seen[view.result]
            else:
                values[view.result] = _PACKETS[view.operation](values[source], *view.arguments)
        self.last, self.seen = list(inputs), values[: plan.inputs + len(plan.views)] if plan.views else []
        return values


def make_plan(graph: fx.GraphModule, prefix: str) -> tuple[Plan, dict[str, fx.GraphModule]]:
    """Cut a traced graph at the calls of its regions.

    Parameters
    ----------
    graph
        Graph of tensors in, list of tensors out; calls of regions in it are `region.call`.
    prefix
        What the names of the new pieces begin with.

    Returns
    -------
    The plan, and the graphs of the pieces between the regions by name.
    """
    return _Planner(graph, prefix).make()


class _Planner:
    def __init__(self, graph: fx.GraphModule, prefix: str) -> None:
        self.graph, self.prefix = graph, prefix
        self.inputs = graph.graph.find_nodes(op="placeholder")
        (self.output,) = graph.graph.find_nodes(op="output")
        self.calls = [node for node in graph.graph.nodes if node.target is region.call]
        self.numbers: dict[Any, int] = {node: i for i, node in enumerate(self.inputs)}
        self.views: list[View] = []
        self.viewed: set[fx.Node] = set(self.inputs)

    def make(self) -> tuple[Plan, dict[str, fx.GraphModule]]:
        self._find_views()
        place = self._places()
        pieces: dict[str, fx.GraphModule] = {}
        done: list[Call | Empty | View] = []
        wanted = [node for node in self.output.args[0]]
        for stage in range(len(self.calls) + 1):
            members = [node for node, at in place.items() if at == stage]
            if members:
                name = f"{self.prefix}{len(pieces)}"
                done.append(self._piece(name, members, wanted, pieces))
            if stage < len(self.calls):
                done.append(self._region(self.calls[stage]))
        outputs = [self.numbers[node] for node in wanted]
        calls = _dropping(done, outputs, len(self.inputs) + len(self.views))
        return Plan(len(self.inputs), len(self.numbers), self.views, calls, outputs), pieces

    def _number(self, node: Any) -> int:
        return self.numbers.setdefault(node, len(self.numbers))

    def _find_views(self) -> None:
        """Take views of inputs out of the pieces: made once, they stay while the state is written over."""
        unbound: dict[fx.Node, tuple[fx.Node, int]] = {}
        for node in self.graph.graph.nodes:
            source = node.args[0] if node.args else None
            if node.target is torch.ops.aten.unbind.int and source in self.viewed:
                unbound[node] = (source, node.args[1] if len(node.args) > 1 else 0)
            elif source in unbound:
                whole, dim = unbound[source]
                self._view(node, whole, "select", [dim, node.args[1]])
            elif node.target in _VIEWS and source in self.viewed and not node.kwargs:
                self._view(node, source, _VIEWS[node.target], list(node.args[1:]))
        self.viewed.update(unbound)

    def _view(self, node: fx.Node, source: fx.Node, operation: str, arguments: list[Any]) -> None:
        self.viewed.add(node)
        self.views.append(View(self.numbers[source], operation, arguments, self._number(node)))

    def _places(self) -> dict[fx.Node, int]:
        """Choose the stage of each node between the regions: before call 0, 1, ... or after the last."""
        last = len(self.calls)
        at = {node: i for i, node in enumerate(self.calls)}
        own = [
            node
            for node in self.graph.graph.nodes
            if node.op in ("call_function", "get_attr") and node not in self.viewed and node not in at and not _of_call(node)
        ]
        first: dict[fx.Node, int] = {}
        for node in own:
            first[node] = max((self._ready(source, at, first) for source in node.all_input_nodes), default=0)
        latest: dict[fx.Node, int] = {}
        for node in reversed(own):
            latest[node] = min((self._needed(user, at, latest, last) for user in node.users), default=last)
        points: list[int] = []
        for node in sorted(own, key=lambda node: latest[node]):
            if not points or points[-1] < first[node]:
                points.append(latest[node])
        return {node: max(point for point in points if point <= latest[node]) for node in own}

    def _ready(self, source: fx.Node, at: dict[fx.Node, int], first: dict[fx.Node, int]) -> int:
        if source in self.viewed:
            return 0
        if _of_call(source):
            return at[source.args[0]] + 1  # type: ignore[index]
        return first[source]

    def _needed(self, user: fx.Node, at: dict[fx.Node, int], latest: dict[fx.Node, int], last: int) -> int:
        if user in at:
            return at[user]
        return last if user.op == "output" else latest[user]

    def _piece(self, name: str, members: list[fx.Node], wanted: list[fx.Node], pieces: dict[str, fx.GraphModule]) -> Call:
        inside = set(members)
        taken: list[fx.Node] = []
        for node in members:
            taken += [source for source in node.all_input_nodes if source not in inside and source not in taken]
        returned = set(wanted)
        made = [
            node
            for node in members
            if (node in returned or any(user not in inside and user.op != "output" for user in node.users))
            and node.target is not torch.ops.aten.copy_.default
        ]
        pieces[name] = _extract(self.graph, members, taken, made)
        return Call(name, [self._number(node) for node in taken], [self._number(node) for node in made], [])

    def _region(self, node: fx.Node) -> Call:
        name, arguments = node.args
        count = len(region.outputs(name))  # type: ignore[arg-type]
        users = {user.args[1]: user for user in node.users}
        results = [self._number(users.get(i, (node, i))) for i in range(count)]  # what nobody takes has a number too
        return Call(name, [self._number(source) for source in arguments], results, [])  # type: ignore[arg-type, union-attr]


def _of_call(node: fx.Node) -> bool:
    return node.target is operator.getitem and node.args[0].target is region.call  # type: ignore[union-attr]


def _extract(graph: fx.GraphModule, members: list[fx.Node], taken: list[fx.Node], made: list[fx.Node]) -> fx.GraphModule:
    """Copy some nodes into a graph of their own."""
    new = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for i, node in enumerate(taken):
        copied[node] = new.placeholder(f"in{i}")
        copied[node].meta = dict(node.meta)
    for node in members:
        copied[node] = new.node_copy(node, lambda source: copied[source])
    new.output([copied[node] for node in made])
    return fx.GraphModule(graph, new)


def _dropping(calls: list[Call | Empty | View], outputs: list[int], standing: int) -> list[Call | Empty | View]:
    """Let each value go after the last call that needs it."""
    kept = set(outputs) | set(range(standing))
    seen: set[int] = set()
    done: list[Call | Empty | View] = []
    for entry in reversed(calls):
        if isinstance(entry, Call):
            needed = set(entry.arguments) | {i for i in entry.results if i >= 0}
            drop = sorted(needed - seen - kept)
            seen |= needed
            entry = attrs.evolve(entry, drop=drop)
        elif isinstance(entry, View):
            seen |= {entry.source}
        done.append(entry)
    return done[::-1]
