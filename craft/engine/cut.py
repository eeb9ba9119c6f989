"""Cutting: the graph of a step becomes a plan and the graphs of its pieces.

The graph is cut at the calls of its regions: what lies between them goes into as few pieces as possible, each at the latest
of these places where it can be, so that nothing is computed long before it is used. A piece that comes again is compiled
once. Gradients of stacked blocks are written by each block's backward into its slice of one buffer.
"""

from __future__ import annotations

import operator
from typing import Any, cast

import attrs
import torch
from torch import fx

from craft.engine import region
from craft.engine.order import COPY, VIEWS, WIDEN, first, grouped, in_parts, origin
from craft.engine.plan import Call, Direct, Empty, Entry, Plan, View
from craft.engine.slabs import Slab, find_slabs, signature
from craft.types import Tensor

__all__ = ["make_plan"]

_WORTH, _MANY = 1 << 22, 6
"""Bytes and parts of a stack that is written part by part: a smaller one of few is in the cache when it is put together, while
code that puts many together takes long to compile."""


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
        self.calls = [node for node in graph.graph.nodes if node.target is region.call or _own(node)]
        self.numbers: dict[Any, int] = {node: i for i, node in enumerate(self.inputs)}
        self.views: list[View] = []
        self.viewed: set[fx.Node] = set(self.inputs)
        self.buffers: dict[fx.Node, list[fx.Node]] = {}
        """Buffers, with the calls that write their slices in order."""
        self.slices: dict[fx.Node, dict[int, tuple[fx.Node, int]]] = {}
        """For each call, which of its outputs goes into which slice of which buffer."""
        self.slabbed: set[fx.Node] = set()
        """What is computed in slabs, after everything else."""
        self.handed: set[fx.Node] = set()
        """What slabs take."""

    def make(self) -> tuple[Plan, dict[str, fx.GraphModule]]:
        self._gather()
        self._find_views()
        self.widened = {node for node in self.graph.graph.nodes if self._widens(node)}
        place = self._places()
        last = len(self.calls)
        slabs = find_slabs([node for node, at in place.items() if at == last], self.viewed.__contains__)
        self._enter(slabs)
        left = self._only_in_slabs()
        for node in (node for slab in slabs for node in slab.cut):
            if node.op == "call_function" and node not in self.buffers and not _of_call(node):
                place.setdefault(node, last)  # put in order for a slab
        pieces: dict[str, fx.GraphModule] = {}
        done: list[Entry] = []
        wanted = list(self.output.args[0])
        for stage in range(len(self.calls) + 1):
            members = [node for node, at in place.items() if at == stage and node not in left]
            for part in in_parts(grouped(members), self.widened):
                done.append(self._piece(f"{self.prefix}{len(pieces)}", part, wanted, pieces))
            if stage < len(self.calls):
                done += self._region(self.calls[stage])
        done += self._slabs(slabs, pieces)
        # a copy is into an input: that input holds it
        outputs = [self.numbers[node.args[0] if node.target is COPY else node] for node in wanted]
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
            elif node.target in VIEWS and source in self.viewed and not node.kwargs:
                self._view(node, source, VIEWS[node.target], list(node.args[1:]))
        self.viewed.update(unbound)

    def _view(self, node: Any, source: fx.Node, operation: str, arguments: list[Any]) -> None:
        self.viewed.add(node)
        self.views.append(View(self.numbers[source], operation, arguments, self._number(node)))

    def _places(self) -> dict[fx.Node, int]:
        """Choose the stage of each node between the regions: before call 0, 1, ... or after the last."""
        last = len(self.calls)
        at = {node: i for i, node in enumerate(self.calls)}
        own = [
            node
            for node in self.graph.graph.nodes
            if node.op == "call_function" and node not in self.viewed and node not in at
            if not _of_call(node) and node not in self.buffers
        ]
        early: dict[fx.Node, int] = {}
        for node in own:
            ready = max((self._ready(source, at, early) for source in node.all_input_nodes), default=0)
            early[node] = last if node.target is COPY else ready  # nothing may read an input that is written over
        latest: dict[fx.Node, int] = {}
        for node in reversed(own):
            latest[node] = min((self._needed(user, at, latest, last) for user in node.users), default=last)
        points: list[int] = []
        for node in sorted(own, key=lambda node: latest[node]):
            if not points or points[-1] < early[node]:
                points.append(latest[node])
        place: dict[fx.Node, int] = {}
        for node in own:
            source = node.args[0] if node.target is operator.getitem else None
            # a part stays with its whole: only tensors are handed from piece to piece
            place[node] = place[source] if source in place else max(point for point in points if point <= latest[node])
        return place

    def _ready(self, source: fx.Node, at: dict[fx.Node, int], early: dict[fx.Node, int]) -> int:
        if source in self.viewed:
            return 0
        if source in at:
            return at[source] + 1
        if source in self.buffers:
            return max(at[call] for call in self.buffers[source]) + 1
        if _of_call(source):
            return at[first(source)] + 1
        return early[source]

    def _needed(self, user: fx.Node, at: dict[fx.Node, int], latest: dict[fx.Node, int], last: int) -> int:
        if user in at:
            return at[user]
        return last if user.op == "output" else latest[user]

    def _widens(self, node: fx.Node) -> bool:
        """Tell whether a node only widens what comes from outside the pieces: each piece does that for itself."""
        if node.target is not WIDEN:
            return False
        source = first(node)
        return source in self.viewed or source in self.buffers or _of_call(source)

    def _piece(self, name: str, members: list[fx.Node], wanted: list[fx.Node], pieces: dict[str, fx.GraphModule]) -> Call:
        inside = set(members)
        again = dict.fromkeys(s for node in members for s in node.all_input_nodes if s not in inside and s in self.widened)
        looks = self._looks(members)
        members = [*looks, *again, *members]
        inside = set(members)
        taken: list[fx.Node] = []
        for node in members:
            taken += [source for source in node.all_input_nodes if source not in inside and source not in taken]
        returned = set(wanted)
        made = [
            node
            for node in members[len(looks) :]
            if (node in returned or node in self.handed or any(self._elsewhere(user, inside) for user in node.users))
            and node.target is not COPY
            and (node not in self.widened or node in returned or node in self.handed)
        ]
        pieces[name] = _extract(self.graph, members, taken, made)
        return Call(name, [self._number(node) for node in taken], [self._number(node) for node in made], [])

    def _elsewhere(self, user: fx.Node, inside: set[fx.Node]) -> bool:
        return user not in inside and user.op != "output" and user not in self.slabbed

    def _enter(self, slabs: list[Slab]) -> None:
        """Look at the parts of the inputs that slabs overwrite: made once, these views stay."""
        for slab in slabs:
            self.slabbed.update(slab.nodes)
            self.handed.update([*slab.cut, *slab.whole])
            for node in slab.cut:
                if node.op == "placeholder":
                    for part in range(slab.parts):
                        self._view((node, part, slab.parts), node, "slice", _span(node, part, slab.parts))

    def _only_in_slabs(self) -> set[fx.Node]:
        """Return what slabs compute and nothing else needs; looks and sums may be needed, and pieces compute them too."""
        found: set[fx.Node] = set()
        for node in reversed(self.graph.graph.nodes):
            if node in self.slabbed and (node.target is COPY or all(user in found for user in node.users)):
                found.add(node)
        return found

    def _slabs(self, slabs: list[Slab], pieces: dict[str, fx.GraphModule]) -> list[Entry]:
        """Call the piece of each slab for all its parts; slabs that compute the same share one piece."""
        names: dict[str, str] = {}
        done: list[Entry] = []
        for slab in slabs:
            name = names.setdefault(signature(slab.graph), f"{self.prefix}{len(pieces)}")
            pieces.setdefault(name, slab.graph)
            whole = [self._number(node) for node in slab.whole]
            for part in range(slab.parts):
                keys = [(node, part, slab.parts) for node in slab.cut]
                for key in keys:
                    if key not in self.numbers:
                        done.append(View(self.numbers[key[0]], "slice", _span(*key), self._number(key)))
                done.append(Call(name, [*(self.numbers[key] for key in keys), *whole], [], []))
        return done

    def _looks(self, members: list[fx.Node]) -> list[fx.Node]:
        """Return the views of inputs that a piece overwrites: it makes them itself, or it would read what it has written."""
        written = {origin(first(node)) for node in members if node.target is COPY}
        found: dict[fx.Node, None] = {}
        for source in dict.fromkeys(source for node in members for source in node.all_input_nodes):
            chain: list[fx.Node] = []
            while source in self.viewed and source not in written and source.op != "placeholder":
                chain.append(source)
                source = first(source)
            if source in written:
                found.update(dict.fromkeys(reversed(chain)))
        return list(found)

    def _region(self, node: fx.Node) -> list[Entry]:
        """Call a region; before it, make the buffers that it is the first to write into, and look at its slices."""
        if node.target is not region.call:
            return [self._direct(node)]
        name, arguments = cast("tuple[str, list[fx.Node]]", node.args)
        before: list[Entry] = []
        numbers = [self._number(source) for source in arguments]
        written = self.slices.get(node, {})
        for index in sorted(written):
            buffer, place = written[index]
            if buffer not in self.numbers:
                value = buffer.meta["val"]
                dtype = str(value.dtype).removeprefix("torch.")
                before.append(Empty(list(value.shape), dtype, str(value.device), self._number(buffer)))
            before.append(View(self.numbers[buffer], "select", [0, place], self._number((buffer, place))))
            numbers.append(self.numbers[buffer, place])
        users = {user.args[1]: user for user in node.users}
        count = len(region.outputs(name)) + len(written)
        # what nobody takes has a number too
        results = [self._number(users.get(i, (node, i))) for i in range(count) if i not in written]
        return [*before, Call(name, numbers, results, [])]

    def _direct(self, node: fx.Node) -> Direct:
        given = [[self._number(x)] if isinstance(x, fx.Node) else {"constant": x} for x in node.args]
        value = node.meta["val"]
        if isinstance(value, Tensor):
            return Direct(_own(node), given, [self._number(node)], [])
        users = {user.args[1]: user for user in node.users}
        return Direct(_own(node), given, [self._number(users.get(i, (node, i))) for i in range(len(value))], [])

    def _gather(self) -> None:
        """Let regions write what is only stacked afterwards into the stack itself."""
        found: dict[tuple[Any, int], list[tuple[fx.Node, list[fx.Node]]]] = {}
        for node in self.graph.graph.nodes:
            parts = _stacked(node)
            if parts:
                key: Any = (first(parts[0]).args[0], parts[0].args[1])
                found.setdefault(key, []).append((node, parts))
        chosen: dict[str, list[int]] = {}
        for (name, index), stacks in found.items():
            writers = [part.args[0] for _, parts in stacks for part in parts]
            calls = [call for call in self.calls if call.target is region.call and call.args[0] == name]
            if any(node.meta["val"].nbytes < _WORTH and len(parts) < _MANY for node, parts in stacks):
                continue
            if len(set(writers)) == len(writers) == len(calls):
                chosen.setdefault(name, []).append(index)
                for node, parts in stacks:
                    self._buffer(node, parts, index)
        for name, indices in chosen.items():
            region.write_into(name, sorted(indices))
        self.graph.graph.eliminate_dead_code()

    def _buffer(self, node: fx.Node, parts: list[fx.Node], index: int) -> None:
        value, part = node.meta["val"], parts[0].meta["val"]
        with self.graph.graph.inserting_before(node):
            buffer = self.graph.graph.call_function(_made, (node.name,))
            buffer.meta["val"] = value.to(part.dtype)
            whole = buffer
            if value.dtype != part.dtype:
                whole = self.graph.graph.call_function(WIDEN, (buffer, value.dtype))
                whole.meta["val"] = value
        node.replace_all_uses_with(whole)
        self.buffers[buffer] = [first(source) for source in parts]
        for place, source in enumerate(parts):
            self.slices.setdefault(first(source), {})[index] = (buffer, place)


def _span(node: fx.Node, part: int, parts: int) -> list[int]:
    """Return the arguments of the slice that is one of equal parts of a value."""
    length = node.meta["val"].shape[0] // parts
    return [0, part * length, (part + 1) * length]


def _made(name: str) -> Tensor:
    """Stand in a graph for a buffer that is made outside it."""
    raise AssertionError(name)


def _stacked(node: fx.Node) -> list[fx.Node]:
    """Return the results of calls that are stacked by a node along a new first axis, if that is all that is done with them.

    A stack is traced as a view of a concatenation.
    """
    if node.target is not torch.ops.aten.view.default or first(node).target is not torch.ops.aten.cat.default:
        return []
    joined = first(node)
    parts = cast("list[fx.Node]", joined.args[0])
    if joined.args[1:] not in ((), (0,)) or node.args[1] != [len(parts), *parts[0].meta["val"].shape]:
        return []
    sources = []
    for part in parts:
        source = first(part) if part.target is WIDEN else part
        if not _of_call(source) or _own(source) or _own(first(source)) or len(source.users) > 1 or len(part.users) > 1:
            return []
        sources.append(source)
    same = {(first(source).args[0], source.args[1]) for source in sources}
    return sources if len(same) == 1 and len(joined.users) == 1 else []


def _of_call(node: fx.Node) -> bool:
    """Tell whether a node is a tensor that a call returns."""
    if node.target is not operator.getitem:
        return bool(_own(node)) and isinstance(node.meta["val"], Tensor)
    return first(node).target is region.call or bool(_own(first(node)))


def _own(node: fx.Node) -> str:
    """Return the name of an operation of Craft's own that a node runs and that is not compiled; empty for any other node."""
    namespace, _, name = getattr(node.target, "_name", "").partition("::")
    return name if namespace == "craft" and name not in ("call", "threefry") else ""


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


def _dropping(calls: list[Entry], outputs: list[int], standing: int) -> list[Entry]:
    """Let each value go after the last call that needs it."""
    kept = set(outputs) | set(range(standing))
    seen: set[int] = set()
    done: list[Entry] = []
    for entry in reversed(calls):
        if isinstance(entry, Call | Direct):
            taken = entry.arguments if isinstance(entry, Call) else [x[0] for x in entry.arguments if isinstance(x, list)]
            needed = {*taken, *entry.results}
            drop = sorted(needed - seen - kept)
            seen |= needed
            entry = attrs.evolve(entry, drop=drop)
        elif isinstance(entry, View):
            seen |= {entry.source}
        done.append(entry)
    return done[::-1]
