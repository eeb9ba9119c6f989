"""Regions: pieces of a model that come again (its blocks), compiled once however often they are called.

While a step is traced, a call of a region becomes one opaque operation `craft::call` in the graph, and so does its backward.
What the region itself computes is traced on the side; see `split`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import fx

from craft import policy, tree
from craft.engine.split import forward_graph, joint_graph, outside, partition, prune
from craft.engine.tracing import apart, returned
from craft.types import Tensor, Tree

__all__ = ["Region", "Regions", "call", "outputs", "write_into"]

_LIBRARY = torch.library.Library("craft", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("call(str name, Tensor[] args) -> Tensor[]")  # type: ignore[no-untyped-call]
_TRACED: dict[str, fx.GraphModule] = {}
"""Graphs of the trace that is under way, by name: what the opaque operation needs to know the shapes it returns."""


@torch.library.register_fake("craft::call", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _shapes(name: str, args: Sequence[Tensor]) -> list[Tensor]:
    return [torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device) for value in outputs(name)]


def outputs(name: str) -> list[Tensor]:
    """Return what the graph of that name returns, as tensors without content."""
    return [node.meta["val"] for node in returned(_TRACED[name])]


def write_into(name: str, indices: Sequence[int]) -> None:
    """Let a graph write some of what it returns into further arguments instead, in their order."""
    graph = _TRACED[name].graph
    outs = returned(_TRACED[name])
    (output,) = graph.find_nodes(op="output")
    places = []
    for index in indices:
        last = graph.find_nodes(op="placeholder")[-1]
        with graph.inserting_after(last):
            places.append(graph.placeholder(f"into_{index}"))
        places[-1].meta["val"] = outs[index].meta["val"]
    with graph.inserting_before(output):
        for place, index in zip(places, indices, strict=True):
            graph.call_function(torch.ops.aten.copy_.default, (place, outs[index])).meta["val"] = place.meta["val"]
    output.args = ([node for i, node in enumerate(outs) if i not in indices],)
    _TRACED[name].recompile()


call = torch.ops.craft.call.default


@attrs.frozen(eq=False)
class Region:
    """One region, traced for arguments of certain shapes."""

    forward: str
    """Name of the graph that maps the leaves to the outputs and, behind them, what the backward needs."""
    taken: tuple[int, ...]
    """Leaves that the forward needs."""
    structure: Any
    """Structure of the outputs."""
    count: int
    """Number of outputs."""
    backward: str = ""
    """Name of the graph of the gradients; empty where none were asked for."""
    kept: tuple[tuple[str, int], ...] = ()
    """First inputs of the backward: (`input`, place among the leaves) or (`output`, place among the forward's outputs)."""
    flows: tuple[int, ...] = ()
    """Outputs whose gradients are the further inputs of the backward."""
    moving: tuple[int, ...] = ()
    """Leaves whose gradients the backward returns, in order."""
    types: tuple[torch.dtype, ...] = ()
    """Types of those gradients; the backward itself may return them narrower."""
    constants: tuple[Tensor, ...] = ()
    """Tensors that the function closes over: further leaves."""


class Regions:
    """The regions of one program, by what tells them apart."""

    def __init__(self, prefix: str, decompositions: dict[Any, Any]) -> None:
        self.prefix, self.decompositions = prefix, decompositions
        self.made: dict[Any, Region] = {}
        self.graphs: dict[str, fx.GraphModule] = {}

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Make a region of a pure function of trees; under vmap it is left as it is."""

        def run(*args: Tree) -> Tree:
            if not _plain():
                return function(*args)
            leaves, structure = tree.flatten(args)
            region = self._find(function, leaves, structure)
            tensors = [*(leaf for leaf in leaves if isinstance(leaf, Tensor)), *region.constants]
            tensors = [tensors[k] for k in region.taken]
            if not region.backward:
                return tree.unflatten(region.structure, call(region.forward, tensors)[: region.count])
            found = _Call.apply(region, *tensors)  # type: ignore[no-untyped-call]
            return tree.unflatten(region.structure, found[: region.count])

        return run

    def _find(self, function: Callable[..., Any], leaves: list[Any], structure: Any) -> Region:
        current = policy.current()
        taped = torch.is_grad_enabled()
        moving = tuple(
            taped and isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.requires_grad for leaf in leaves
        )
        seen = tuple(
            (tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else (type(leaf), leaf)
            for leaf in leaves
        )
        key = (function, structure, seen, moving, current)
        if key not in self.made:
            self.made[key] = self._trace(function, leaves, structure, moving)
        return self.made[key]

    def _trace(self, function: Callable[..., Any], leaves: list[Any], structure: Any, moving: tuple[bool, ...]) -> Region:
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        made: list[Any] = []

        def flat(*values: Tensor) -> tuple[Tensor, ...]:
            full = list(leaves)
            for i, value in zip(places, values, strict=True):
                full[i] = value
            outs, found = tree.flatten(function(*tree.unflatten(structure, full)))
            made[:] = [found]
            return tuple(apart(outs, values))

        shapes = [(leaves[i].shape, leaves[i].stride(), leaves[i].dtype, leaves[i].device) for i in places]
        needed = tuple(k for k, i in enumerate(places) if moving[i])
        name = f"{self.prefix}{len(self.made)}"
        with outside(), policy.using(wrap=None, tape=False, rematerialise=False):
            joint = joint_graph(flat, shapes, needed, self.decompositions) if needed else None
            if joint is None:
                graph, constants = forward_graph(flat, shapes, self.decompositions)
                return self._enter(name, graph, None, made[0], len(returned(graph)), constants=tuple(constants))
        with outside():
            forward, backward = partition(joint.graph, joint.returns)
        more = {"flows": joint.flows, "moving": joint.moving, "constants": tuple(joint.constants)}
        return self._enter(name, forward, backward, made[0], joint.returns, **more)

    def _enter(self, name: str, forward: Any, backward: Any, structure: Any, count: int, **more: Any) -> Region:
        _TRACED[name] = self.graphs[name] = forward
        kept, backward, types = backward or ((), None, ())
        taken = prune(forward, {place for kind, place in kept if kind == "input"} | set(more.get("moving", ())))
        if backward is None:
            return Region(name, taken, structure, count, constants=more["constants"])
        _TRACED[f"{name}b"] = self.graphs[f"{name}b"] = backward
        kept = tuple((kind, taken.index(place) if kind == "input" else place) for kind, place in kept)
        moving = tuple(taken.index(place) for place in more.pop("moving"))
        return Region(name, taken, structure, count, f"{name}b", kept, moving=moving, types=types, **more)

    def forget(self) -> None:
        """Leave the trace."""
        for name in self.graphs:
            _TRACED.pop(name, None)


class _Call(torch.autograd.Function):
    """A region in a program that is differentiated."""

    @staticmethod
    def forward(region: Region, *leaves: Tensor) -> tuple[Tensor, ...]:
        return tuple(call(region.forward, list(leaves)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.region = region = inputs[0]
        ctx.count = len(inputs) - 1
        ctx.save_for_backward(*(inputs[1 + place] if kind == "input" else output[place] for kind, place in region.kept))
        ctx.mark_non_differentiable(*(out for i, out in enumerate(output) if i not in region.flows))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        region = ctx.region
        flows = [grads[i].contiguous() for i in region.flows]
        found = _CallBack.apply(region, *ctx.saved_tensors, *flows)  # type: ignore[no-untyped-call]
        full: list[Tensor | None] = [None] * ctx.count
        for place, value, dtype in zip(region.moving, found, region.types, strict=True):
            full[place] = value.to(dtype)
        return None, *full


class _CallBack(torch.autograd.Function):
    """The derivative, which has none itself, and says so: to the tape the opaque operation would be a constant."""

    @staticmethod
    def forward(region: Region, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(call(region.backward, list(values)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError("a compiled block has no second derivative; take --compile step or none")


def _plain() -> bool:
    """Tell whether nothing or one reverse-mode gradient is under way: all that the opaque operation has rules for."""
    stack = torch._C._functorch.get_interpreter_stack() or []
    return not stack or (len(stack) == 1 and stack[0].key() == torch._C._functorch.TransformType.Grad)
