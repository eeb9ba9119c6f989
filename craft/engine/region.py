"""Regions: pieces of a model that come again (its blocks), compiled once however often they are called.

While a step is traced, a call of a region becomes one opaque operation `craft::call` in the graph, and so does its backward.
What the region itself computes is traced on the side: forward and backward are split so that what is cheap is computed
again instead of kept (Chen et al. 2016, arXiv:1604.06174, by torch's min-cut partitioner), or so that nothing but the
inputs is kept, where the policy says to rematerialise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import attrs
import torch
from torch import fx

from craft import policy, tree
from craft.types import Tensor, Tree

__all__ = ["Region", "Regions", "apart", "call", "outputs", "returned", "trace", "write_into"]

_LIBRARY = torch.library.Library("craft", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("call(str name, Tensor[] args) -> Tensor[]")  # type: ignore[no-untyped-call]
_MOVES = {
    torch.ops.aten.clone.default,
    torch.ops.aten.slice.Tensor,
    torch.ops.aten.view.default,
    torch.ops.aten.permute.default,
    torch.ops.aten.select.int,
}
"""What moves numbers and does not compute."""
_TRACED: dict[str, fx.GraphModule] = {}
"""Graphs of the trace that is under way, by name: what the opaque operation needs to know the shapes it returns."""


@torch.library.register_fake("craft::call", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _shapes(name: str, args: Sequence[Tensor]) -> list[Tensor]:
    return [torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device) for value in outputs(name)]


def outputs(name: str) -> list[Tensor]:
    """Return what the graph of that name returns, as tensors without content."""
    return [node.meta["val"] for node in returned(_TRACED[name])]


def returned(graph: fx.GraphModule) -> list[fx.Node]:
    """Return the nodes that a graph returns."""
    (output,) = graph.graph.find_nodes(op="output")
    return list(output.args[0])


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
        graph.recompile()
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
        with _outside(), policy.using(wrap=None, tape=False, rematerialise=False):
            joint = _joint_graph(flat, shapes, needed, self.decompositions) if needed else None
            if joint is None:
                graph, constants = _forward_graph(flat, shapes, self.decompositions)
                return self._enter(name, graph, None, made[0], len(returned(graph)), constants=tuple(constants))
        with _outside():
            forward, backward = _partition(joint.graph, joint.returns)
        more = {"flows": joint.flows, "moving": joint.moving, "constants": tuple(joint.constants)}
        return self._enter(name, forward, backward, made[0], joint.returns, **more)

    def _enter(self, name: str, forward: Any, backward: Any, structure: Any, count: int, **more: Any) -> Region:
        _TRACED[name] = self.graphs[name] = forward
        kept, backward, types = backward or ((), None, ())
        taken = _prune(forward, {place for kind, place in kept if kind == "input"} | set(more.get("moving", ())))
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


class _outside:  # noqa: N801 - reads as a statement
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


def _forward_graph(
    flat: Callable[..., Any], shapes: list[Any], decompositions: dict[Any, Any]
) -> tuple[fx.GraphModule, list[Tensor]]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        examples = [_example(shape) for shape in shapes]
        return trace(lambda *values: list(flat(*values)), examples, decompositions)


class _Joint(NamedTuple):
    """A graph (leaves, closed-over tensors, gradients of the outputs) -> (outputs, gradients of the leaves)."""

    graph: fx.GraphModule
    returns: int
    flows: tuple[int, ...]
    moving: tuple[int, ...]
    constants: list[Tensor]


def _joint_graph(
    flat: Callable[..., Any], shapes: list[Any], needed: tuple[int, ...], decompositions: dict[Any, Any]
) -> _Joint | None:
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
    return _Joint(graph, len(outs), flows, given, constants)


def _partition(joint: fx.GraphModule, count: int) -> tuple[fx.GraphModule, tuple[Any, ...]]:
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


def _prune(graph: fx.GraphModule, wanted: set[int]) -> tuple[int, ...]:
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
    source: fx.Node = node.args[0] if node.args else node  # type: ignore[assignment]
    if node.target is torch.ops.prims.convert_element_type.default:
        return source if source.meta["val"].dtype.itemsize < node.meta["val"].dtype.itemsize else None
    if node.target not in _MOVES or (found := _before_widening(graph, source)) is None:
        return None
    return _call(graph, node.target, (found, *node.args[1:]), dict(node.kwargs))


def _call(graph: fx.Graph, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
    node = graph.call_function(target, args, kwargs)
    node.meta["val"] = target(args[0].meta["val"], *args[1:], **kwargs)
    return node
