"""Lowering: a graph of tensor operations becomes C++ (CPU), or whatever torch's compiler makes of it (elsewhere)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import fx

from craft.types import Tensor

__all__ = ["Source", "decompositions", "to_cpp", "to_program"]


class Source(NamedTuple):
    """C++ of one graph.

    Attributes
    ----------
    code
        Text with a function `inductor_entry_impl`.
    outputs
        How many tensors it returns.
    """

    code: str
    outputs: int


def decompositions() -> dict[Any, Any]:
    """Return how larger operations are put in terms of smaller ones."""
    from torch._inductor.decomposition import select_decomp_table

    return dict(select_decomp_table())


def to_cpp(graph: fx.GraphModule) -> Source:
    """Write a graph as C++, kernels and the calls between them.

    The graph has only operations that `decompositions` leaves, its placeholders carry tensors without content, and what it
    writes into its inputs it writes by `copy_` at its end.
    """
    from torch._guards import CompileContext, compile_context
    from torch._inductor import compile_fx
    from torch._inductor import config as inductor
    from torch._inductor.virtualized import V

    examples = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
    settings = {"cpp_wrapper": True, "fx_graph_cache": False, "cpp.vec_isa_ok": True}
    mode = next((example.fake_mode for example in examples if hasattr(example, "fake_mode")), None)
    with (
        torch.no_grad(),
        warnings.catch_warnings(),
        inductor.patch(settings),
        compile_context(CompileContext(None)),
        V.set_fake_mode(mode),
        _caught() as caught,
    ):
        warnings.simplefilter("ignore")  # the compiler's remarks on its own machinery
        compile_fx.compile_fx_inner(graph, examples, cpp_wrapper=True, is_inference=True)
    code = caught["main_code"].replace("#include <torch/csrc/inductor/cpp_wrapper/cpu.h>", "")
    code = code.replace("py::gil_scoped_release_simple release;", "").replace("py::gil_scoped_release release;", "")
    return Source(code + (caught.get("kernel_code") or ""), caught["num_outputs"])


@contextmanager
def _caught() -> Iterator[dict[str, Any]]:
    """Take the C++ from the compiler's hands when it is about to build it, instead of letting it."""
    from torch._inductor.codecache import CppWrapperCodeCache

    found: dict[str, Any] = {}

    def catch(**given: Any) -> Callable[..., Any]:
        found.update(given)
        return lambda *args: []

    former = CppWrapperCodeCache.__dict__.get("load_pybinding")
    CppWrapperCodeCache.load_pybinding = staticmethod(catch)  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        if former is None:
            del CppWrapperCodeCache.load_pybinding
        else:
            CppWrapperCodeCache.load_pybinding = former


def to_program(graph: fx.GraphModule) -> Callable[[list[Tensor]], list[Tensor]]:
    """Let torch's compiler make a program of a graph, by its own ways: on GPUs."""
    from torch._inductor import compile as lower

    examples = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = lower(graph, examples)
    return lambda inputs: list(program(*inputs))
