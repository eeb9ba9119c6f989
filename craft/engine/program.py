"""Compiled programs: a pure function of trees becomes one flat program, whose state is written back inside the graph."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from craft import tree
from craft.types import Metrics, Step, Tensor, Tree

__all__ = ["cache_compiled", "compile_function", "compile_step", "compiler_missing"]


def compiler_missing(device: torch.device) -> str:
    """Say in a sentence why nothing can be compiled for the device; empty if it can."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++", "cl"]
    if any(shutil.which(name) for name in names):
        return ""
    kind = "C++ compiler" if device.type == "cpu" else "compiler"
    return f"no {kind} was found ({', '.join(names)})"


def cache_compiled(directory: Path) -> None:
    """Keep what is compiled in `directory`, readable by this user alone, so that the next run finds it.

    `TORCHINDUCTOR_CACHE_DIR` wins; a directory that cannot be written leaves torch's own choice.
    """
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError:
        return
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(directory)


def compile_step(update: Step, state: Tree, batch: Tree) -> Callable[[Tree, Tree], Metrics]:
    """Compile a step into one program that overwrites the state it is given.

    The step is traced once by running it on tensors without content, gradients and all, into one graph that ends with the
    copies of the new leaves into the old ones: memory does not double and the caller's step stays pure.

    Parameters
    ----------
    update
        (state, batch) -> (state, metrics), pure.
    state, batch
        Examples; every later call has the same structure, shapes, types and devices.

    Returns
    -------
    (state, batch) -> metrics; the state's leaves hold the new state afterwards.
    """

    return compile_function(_written(update), state, batch)


def _written(update: Step) -> Callable[[Tree, Tree], Metrics]:
    """Make of a pure step one that writes the new state into the old and returns the metrics."""

    def run(state: Tree, batch: Tree) -> Metrics:
        new, metrics = update(state, batch)
        owned: Metrics
        held = {leaf.untyped_storage()._cdata for leaf in tree.leaves(state)}

        def own(value: Tensor) -> Tensor:
            """Compute what is an old leaf anew, or it would be read after that leaf is overwritten: a clone is dropped."""
            if value.untyped_storage()._cdata not in held:
                return value
            return value.neg().neg() if value.is_floating_point() else value.bitwise_not().bitwise_not()

        new = tree.map(lambda old, value: value if value is old else own(value), state, new)
        owned = tree.map(own, metrics)
        tree.map(lambda old, value: old if value is old else old.copy_(value), state, new)
        return owned

    return run


def compile_function(function: Callable[..., Tree], *examples: Tree) -> Callable[..., Any]:
    """Compile a function of trees of tensors for arguments like the examples."""
    leaves, structure = tree.flatten(examples)
    made: list[Any] = []

    def flat(*values: Tensor) -> list[Tensor]:
        outputs, out_structure = tree.flatten(function(*tree.unflatten(structure, values)))
        made[:] = [out_structure]
        return outputs

    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's remarks on its own machinery
        graph = make_fx(flat, tracing_mode="fake")(*leaves)
        from torch._inductor import compile as lower  # a second's import, paid by compiled runs only

        program = lower(graph, leaves)

    def call(*args: Tree) -> Any:
        with torch.no_grad():
            return tree.unflatten(made[0], program(*tree.leaves(args)))

    return call
