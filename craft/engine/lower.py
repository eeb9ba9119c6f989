"""Lowering: a graph of tensor operations becomes C++ (CPU), or whatever torch's compiler makes of it (elsewhere)."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import fx

from craft.engine.keyed import know_threefry
from craft.types import Tensor

__all__ = ["Source", "decompositions", "to_cpp", "to_program"]

_TWICE, _CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715
_EXPONENTIAL = re.compile(r"(\b\w+(?:\.neg\(\))?)\.exp\(\)")
_INPUT = re.compile(r"std::move\(inputs\[(\d+)\]\)")
_EXP = """\
#include <torch/csrc/inductor/cpp_prefix.h>
template <typename T> inline T craft_exp(const T& x) { return x.exp(); }
#if INDUCTOR_USE_VECTOR_TYPES()
template <> inline at::vec::Vectorized<float> craft_exp(const at::vec::Vectorized<float>& x) {
  return at::vec::Vectorized<float>::blendv(x.exp_u20(), x, x.isnan());
}
template <int N> inline at::vec::VectorizedN<float, N> craft_exp(const at::vec::VectorizedN<float, N>& x) {
  at::vec::VectorizedN<float, N> y;
  for (int i = 0; i < N; i++) y[i] = craft_exp(x[i]);
  return y;
}
#endif
"""
"""Three times as fast as the library's exponential, and within 20 units in the last place: rounding of the sums is larger.
Below -86.6 it is 0.

The fast one alone takes what is not a number for something infinite, and a sigmoid would turn that into 0.
"""


class Source(NamedTuple):
    """C++ of one graph.

    Attributes
    ----------
    code
        Text with a function `inductor_entry_impl`.
    inputs
        How many tensors it takes.
    outputs
        How many tensors it returns.
    """

    code: str
    inputs: int
    outputs: int


def decompositions() -> dict[Any, Any]:
    """Return how larger operations are put in terms of smaller ones."""
    from torch._inductor.decomposition import select_decomp_table

    know_threefry()
    aten, table = torch.ops.aten, dict(select_decomp_table())
    return table | {
        aten.gelu.default: _gelu(table[aten.gelu.default]),
        aten.gelu_backward.default: _gelu_back(table[aten.gelu_backward.default]),
        aten.mm.default: _mm(table.get(aten.mm.default)),
        aten.lerp.Tensor: _lerp,
        aten.lerp.Scalar: _lerp,
    }


def _mm(former: Any) -> Callable[..., Any]:
    """Read a transposed matrix in its own order where one row is multiplied by it: twice as fast as the library's product."""

    def mm(x: Tensor, weight: Tensor) -> Any:
        if x.device.type == "cpu" and x.shape[0] == 1 and weight.shape[0] > 1 and weight.stride(0) == 1 < weight.stride(1):
            wide = torch.float64 if x.dtype == torch.float64 else torch.float32
            return (weight.t().to(wide) * x.to(wide)).sum(-1)[None].to(x.dtype)
        return former(x, weight) if former is not None else NotImplemented

    return mm


def _lerp(start: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """Blend in three operations instead of ten: exact at weight 1 within rounding only, which running means never need."""
    return start + weight * (end - start)


def _gelu(exact: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Put GELU by tanh in terms of a sigmoid, which is the same function and takes a third of the time."""

    def gelu(x: Tensor, approximate: str = "none") -> Tensor:
        if approximate != "tanh":
            return exact(x, approximate=approximate)
        wide = x if x.dtype == torch.float64 else x.float()
        return (wide * torch.sigmoid(_TWICE * (wide + _CUBIC * wide * wide * wide))).to(x.dtype)

    return gelu


def _gelu_back(exact: Callable[..., Tensor]) -> Callable[..., Tensor]:

    def gelu_backward(grad: Tensor, x: Tensor, approximate: str = "none") -> Tensor:
        if approximate != "tanh":
            return exact(grad, x, approximate=approximate)
        wide = x if x.dtype == torch.float64 else x.float()
        square = wide * wide
        share = torch.sigmoid(_TWICE * (wide + _CUBIC * wide * square))
        slope = share + wide * share * (1 - share) * (_TWICE * (1 + 3 * _CUBIC * square))
        return (grad.to(wide.dtype) * slope).to(x.dtype)

    return gelu_backward


def to_cpp(graph: fx.GraphModule, *, profile: bool = False) -> Source:
    """Write a graph as C++, kernels and the calls between them.

    The graph has only operations that `decompositions` leaves, its placeholders carry tensors without content, and what it
    writes into its inputs it writes by `copy_` at its end. With `profile` every kernel tells torch's profiler its name.
    """
    settings = {
        "cpp_wrapper": True,
        "fx_graph_cache": False,
        "cpp.vec_isa_ok": True,
        "cpp.enable_kernel_profile": profile,
        "cpp.descriptive_names": "original_aten",
    }
    with _caught() as caught:
        _lowered(graph, settings, cpp_wrapper=True)
    count = len(graph.graph.find_nodes(op="placeholder"))
    code = caught["main_code"].replace("#include <torch/csrc/inductor/cpp_wrapper/cpu.h>", "")
    code = code.replace("py::gil_scoped_release_simple release;", "").replace("py::gil_scoped_release release;", "")
    code = _EXP + _EXPONENTIAL.sub(r"craft_exp(\1)", code + (caught.get("kernel_code") or ""))
    highest = max((int(number) for number in _INPUT.findall(code)), default=-1)
    if highest >= count:
        raise RuntimeError("the compiler made inputs of its own")
    return Source(code, count, caught["num_outputs"])


def _lowered(graph: fx.GraphModule, settings: dict[str, Any], **more: Any) -> Any:
    """Hand a graph to torch's compiler, without what it does first elsewhere.

    There is nothing to differentiate, and what is written is written at the end. Inputs that are views of one another, as
    the parts of a stack are, are taken as they come; torch would expect their common base instead, which nobody gives it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's remarks on its own machinery
        from torch._guards import CompileContext, compile_context
        from torch._inductor import compile_fx
        from torch._inductor import config as inductor
        from torch._inductor.virtualized import V

    examples = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
    for node in graph.graph.nodes:
        if node.op == "call_function":
            node.meta.setdefault("original_aten", node.target)  # kernels are named by what they are fused of
    (output,) = graph.graph.find_nodes(op="output")
    output.meta["user_visible_output_idxs"] = list(range(len(output.args[0])))
    mode = next((example.fake_mode for example in examples if hasattr(example, "fake_mode")), None)
    with (
        torch.no_grad(),
        warnings.catch_warnings(),
        inductor.patch(settings),
        compile_context(CompileContext(None)),
        V.set_fake_mode(mode),
    ):
        warnings.simplefilter("ignore")
        return compile_fx.compile_fx_inner(graph, examples, is_inference=True, **more)


@contextmanager
def _caught() -> Iterator[dict[str, Any]]:
    """Take the C++ from the compiler's hands when it is about to build it, instead of letting it."""
    from torch._inductor.codecache import CppWrapperCodeCache

    found: dict[str, Any] = {}

    def catch(**given: Any) -> Callable[..., Any]:
        found.update(given)
        return lambda *args: []

    former = CppWrapperCodeCache.__dict__.get("load_pybinding")
    CppWrapperCodeCache.load_pybinding = staticmethod(catch)  # type: ignore[method-assign]
    try:
        yield found
    finally:
        if former is None:
            del CppWrapperCodeCache.load_pybinding
        else:
            CppWrapperCodeCache.load_pybinding = former  # type: ignore[method-assign]


def to_program(graph: fx.GraphModule) -> Callable[[list[Tensor]], list[Tensor]]:
    """Let torch's compiler make a program of a graph, by its own ways: on GPUs."""
    program = _lowered(graph, {})
    return lambda inputs: list(program(list(inputs)))  # which it empties
