"""Splitting: what a region computes, forwards and backwards, traced on the side and parted into two graphs.

What is cheap is computed again instead of kept (Chen et al. 2016, arXiv:1604.06174, by torch's min-cut partitioner), or
nothing but the inputs is kept, where the policy says to rematerialise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import fx

from craft import policy
from craft.engine.order import WIDEN, first, widens
from craft.engine.tracing import returned, trace
from craft.types import Tensor

__all__ = ["Joint", "forward_graph", "joint_graph", "outside", "partition", "prune"]

_MOVES = {
    torch.ops.aten.clone.default,
    torch.ops.aten.slice.Tensor,
    torch.ops.aten.view.default,
    torch.ops.aten.permute.default,
    torch.ops.aten.select.int,
}
"""What moves numbers and does not compute."""


class outside:  # noqa: N801 - reads as a statement
    """Trace on the side: no transform, no mode and no tape of the trace that is under way."""

    def __enter__(self) -> None:
        from contextlib import ExitStack

        from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
        from torch.utils._python_dispatch import _disable_current_modes

        self.stack = ExitStack()
        self.stack.enter_context(temporarily_clear_interpreter_stack())
        self.stack.enter_context(_disable_current_modes())
        self.stack.enter_context(torch.enable_grad())

    def __exit__(self, *error: object) -> None:
        self.stack.close()


def _example(shape: tuple[Any, ...], *, moving: bool = False) -> Tensor:
    size, stride, dtype, device = shape
    return torch.empty_strided(size, stride, dtype=dtype, device=device, requires_grad=moving)


def forward_graph(
    flat: Callable[..., Any], shapes: list[Any], decompositions: dict[Any, Any]
) -> tuple[fx.GraphModule, list[Tensor]]:
    """Trace what a region computes, and the tensors that it closes over."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        examples = [_example(shape) for shape in shapes]
        return trace(lambda *values: list(flat(*values)), examples, decompositions)


class Joint(NamedTuple):
    """A graph (leaves, closed-over tensors, gradients of the outputs) -> (outputs, gradients of the leaves)."""

    graph: fx.GraphModule
    returns: int
    flows: tuple[int, ...]
    moving: tuple[int, ...]
    constants: list[Tensor]


def joint_graph(
    flat: Callable[..., Any], shapes: list[Any], needed: tuple[int, ...], decompositions: dict[Any, Any]
) -> Joint | None:
    """Trace outputs and gradients together; none where no gradient flows."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        primals = [_example(shape, moving=k in needed) for k, shape in enumerate(shapes)]
        outs = flat(*primals)
        flows = tuple(i for i, out in enumerate(outs) if out.requires_grad)
        if not flows:
            return None
        found = torch.autograd.grad(
            [outs[i] for i in flows], [primals[k] for k in needed], [torch.ones_like(outs[i]) for i in flows], allow_unused=True
        )
        given = tuple(k for k, grad in zip(needed, found, strict=True) if grad is not None)
        if not given:
            return None
        tangents = [torch.empty(outs[i].shape, dtype=outs[i].dtype, device=outs[i].device) for i in flows]

        def joint(*values: Tensor) -> list[Tensor]:
            made = flat(*values[: len(primals)])
            grads = torch.autograd.grad([made[i] for i in flows], [values[k] for k in given], values[len(primals) :])
            return [*made, *(grad.contiguous() for grad in grads)]

        graph, constants = trace(joint, [*primals, *tangents], decompositions, place=len(primals))
    count = len(primals) + len(constants)
    for k, node in enumerate(graph.graph.find_nodes(op="placeholder")):
        node.name = node.target = f"primals_{k}" if k < count else f"tangents_{k - count}"
    graph.recompile()
    return Joint(graph, len(outs), flows, given, constants)


def partition(joint: fx.GraphModule, count: int) -> tuple[fx.GraphModule, tuple[Any, ...]]:
    """Split a joint graph into forward and backward; say where the backward's first inputs come from."""
    import torch._functorch.partitioners as partitioners

    if policy.current().rematerialise:
        _keep_inputs_only(joint, count)
    forward, backward = partitioners.min_cut_rematerialization_partition(joint, None, num_fwd_outputs=count)
    names = [node.name for node in forward.graph.find_nodes(op="placeholder")]
    outs = returned(forward)
    unique, kept = outs[:count], []
    behind: dict[str, int] = {}
    for node in outs[count:]:
        if node.op != "placeholder" and node.name not in behind:
            behind[node.name] = len(unique)
            unique.append(node)
    for node in backward.graph.find_nodes(op="placeholder"):
        if "tangents" not in str(node.target):
            kept.append(("input", names.index(node.name)) if node.name in names else ("output", behind[node.name]))
    _return(forward, unique)
    types = _narrow(backward)
    return forward, (tuple(kept), backward, types)


def _keep_inputs_only(joint: fx.GraphModule, count: int) -> None:
    """Mark what the forward computes as to be computed again."""
    from torch.utils.checkpoint import CheckpointPolicy

    tangent = {node for node in joint.graph.find_nodes(op="placeholder") if "tangents" in str(node.target)}
    backward: set[fx.Node] = set(tangent)
    for node in joint.graph.nodes:
        if any(source in backward for source in node.all_input_nodes):
            backward.add(node)
        elif node.op == "call_function":
            node.meta["recompute"] = CheckpointPolicy.MUST_RECOMPUTE
            node.meta["ac_graph_id"] = 0


def prune(graph: fx.GraphModule, wanted: set[int]) -> tuple[int, ...]:
    """Take inputs away that nothing needs: what is computed for them alone goes too. Return the places that stay."""
    taken = []
    for place, node in enumerate(graph.graph.find_nodes(op="placeholder")):
        if node.users or place in wanted:
            taken.append(place)
        else:
            graph.graph.erase_node(node)
    graph.recompile()
    return tuple(taken)


def _return(graph: fx.GraphModule, nodes: Sequence[fx.Node]) -> None:
    (output,) = graph.graph.find_nodes(op="output")
    output.args = (list(nodes),)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _narrow(graph: fx.GraphModule) -> tuple[torch.dtype, ...]:
    """Return gradients before they are widened: half the memory, and whoever uses them widens them on the way."""
    nodes = returned(graph)
    types = tuple(node.meta["val"].dtype for node in nodes)
    _return(graph, [_unwidened(graph, node) for node in nodes])
    return types


def _unwidened(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Return what a node widens, contiguous; the node itself if it widens nothing."""
    with graph.graph.inserting_before(graph.graph.output_node()):
        found = _before_widening(graph.graph, node)
        if found is None or found.meta["val"].is_contiguous():
            return found or node
        return _call(graph.graph, torch.ops.aten.clone.default, (found,), {"memory_format": torch.contiguous_format})


def _before_widening(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Return what a node looks like without the widening on its way; none if there is none."""
    if node.target is WIDEN:
        return first(node) if widens(node) else None
    if node.target not in _MOVES or (found := _before_widening(graph, first(node))) is None:
        return None
    return _call(graph, node.target, (found, *node.args[1:]), dict(node.kwargs))


def _call(graph: fx.Graph, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
    node = graph.call_function(target, args, kwargs)
    node.meta["val"] = target(args[0].meta["val"], *args[1:], **kwargs)
    return node
