"""Tracing: a function of tensors becomes a graph without state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from craft.engine.simplify import simplify
from craft.types import Tensor

__all__ = ["apart", "returned", "trace"]


def returned(graph: fx.GraphModule) -> list[fx.Node]:
    """Return the nodes that a graph returns."""
    (output,) = graph.graph.find_nodes(op="output")
    return list(output.args[0])


def apart(values: Sequence[Tensor], sources: Sequence[Tensor]) -> list[Tensor]:
    """Compute anew what lies in the memory of a source, or it would be read after that source is overwritten.

    The compiler drops a clone, but not a number that is negated twice.
    """
    held = {source.untyped_storage()._cdata for source in sources}

    def own(value: Tensor) -> Tensor:
        if value.untyped_storage()._cdata not in held:
            return value
        return value.bitwise_not().bitwise_not() if not (value.is_floating_point() or value.is_complex()) else value.neg().neg()

    return [own(value) for value in values]


def trace(
    function: Callable[..., Any], examples: Sequence[Tensor], decompositions: dict[Any, Any], place: int | None = None
) -> tuple[fx.GraphModule, list[Tensor]]:
    """Record a function of tensors as a graph without state.

    Parameters
    ----------
    function
        From tensors to a list of tensors.
    examples
        Tensors without content.
    decompositions
        How larger operations are put in terms of smaller ones.
    place
        Number of the input before which the closed-over tensors come; none: behind all inputs.

    Returns
    -------
    The graph, and the tensors that the function closes over: further inputs. What the function writes in place is put as
    new values, but for copies into inputs, which come last.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(function, decompositions, _allow_non_fake_inputs=True)(*examples)
    constants = _lift(graph, examples, place)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    if _writes(graph):
        inputs = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
        names = [node.target for node in graph.graph.find_nodes(op="placeholder")]
        graph = make_fx(torch.func.functionalize(graph), decompositions, _allow_non_fake_inputs=True)(*inputs)
        for node, name in zip(graph.graph.find_nodes(op="placeholder"), names, strict=True):
            node.name = node.target = name
    simplify(graph)
    return graph, constants


def _writes(graph: fx.GraphModule) -> bool:
    """Tell whether anything is written in place but by copies into inputs at the end."""
    ended = False
    for node in graph.graph.nodes:
        copies = node.target is torch.ops.aten.copy_.default and node.args[0].op == "placeholder" and not node.users
        if node.op == "output":
            return False
        mutable = getattr(getattr(node.target, "_schema", None), "is_mutable", False)
        if (mutable and not copies) or (ended and not copies):
            return True
        ended = ended or copies
    return False


def _lift(graph: fx.GraphModule, examples: Sequence[Tensor], place: int | None) -> list[Tensor]:
    """Make inputs of the tensors that a graph holds."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import _disable_current_modes

    mode = next((example.fake_mode for example in examples if hasattr(example, "fake_mode")), None) or FakeTensorMode()
    inputs = graph.graph.find_nodes(op="placeholder")
    place = len(inputs) if place is None else place
    lifted: dict[str, fx.Node] = {}
    constants: list[Tensor] = []
    for node in graph.graph.find_nodes(op="get_attr"):
        name = str(node.target)
        if name not in lifted:
            with _disable_current_modes():
                constants.append(getattr(graph, name).detach())
            before = inputs[place] if place < len(inputs) else next(n for n in graph.graph.nodes if n.op != "placeholder")
            with graph.graph.inserting_before(before):
                lifted[name] = graph.graph.placeholder(f"held_{len(lifted)}")
            lifted[name].meta["val"] = mode.from_tensor(constants[-1])
        node.replace_all_uses_with(lifted[name])
        graph.graph.erase_node(node)
    return constants
