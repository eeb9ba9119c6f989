"""The engine: how a task runs on this machine. It turns pure functions into programs and owns their memory."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
import torch

from craft import policy, tree
from craft.cache import cache_directory
from craft.engine.allocator import keep_memory, return_memory, trim
from craft.engine.device import PRECISIONS, compute_type, resolve_device, set_threads
from craft.engine.mode import Mode, choose_mode
from craft.engine.program import Program, cache_compiled, compile_function, compile_step
from craft.errors import UsageError
from craft.run import Run
from craft.step import Task
from craft.types import Metrics, Tensor, Tree

__all__ = ["Engine", "start"]

_LARGE, _KEPT = 1 << 22, 1 << 26
"""Bytes of a value that is given back at once where memory counts, and of what is kept for smaller ones: at 100M parameters,
memory within a few percent of the least, for an eighth of the time; from one megabyte on it would be a quarter."""


@attrs.frozen
class Engine:
    """A device, a type, a mode: what a run keeps from its first step to its last."""

    device: torch.device
    """Where everything is computed."""
    compute: torch.dtype
    """Type of the activations."""
    mode: Mode
    """What is compiled."""
    threads: int
    """CPU threads."""
    profile: bool = False
    """Whether compiled kernels tell the profiler their names."""
    why: str = ""
    """Why this mode, for people."""
    rematerialise: bool = False
    """Whether the activations of the model's blocks are computed again in the backward pass instead of kept."""
    memory: str = ""
    """Why so, for people."""

    def describe(self) -> dict[str, Any]:
        """Return what the bits of a run depend on, as JSON; a resumed run compares it."""
        return {
            "device": self.device.type,
            "precision": next(name for name, dtype in PRECISIONS.items() if dtype == self.compute),
            "compile": self.mode,
            "rematerialise": self.rematerialise,
            "threads": self.threads,
            "torch": torch.__version__,
            "machine": platform.machine(),
        }

    def place(self, value: Tree, *, consume: bool = False) -> Tree:
        """Put a tree on the device, into memory of its own: programs overwrite it.

        Parameters
        ----------
        value
            Tree of tensors.
        consume
            Whether the caller gives the tree away: what has memory of its own already stays where it is.
        """
        leaves, structure = tree.flatten(value)
        counts = Counter(leaf.untyped_storage().data_ptr() for leaf in leaves)

        def alone(leaf: Tensor) -> bool:
            held = leaf.untyped_storage()
            whole = leaf.is_contiguous() and held.nbytes() == leaf.nbytes and held.resizable()
            return whole and counts[held.data_ptr()] == 1 and leaf.device == self.device and not leaf.requires_grad

        placed = [leaf if consume and alone(leaf) else leaf.detach().to(self.device, copy=True).contiguous() for leaf in leaves]
        return tree.unflatten(structure, placed)

    def send(self, batch: Tree) -> Tree:
        """Move a batch to the device."""
        return batch if self.device.type == "cpu" else tree.to(batch, self.device)

    def step(
        self, task: Task, state: Tree, batch: Tree, say: Callable[[str], None] | None = None
    ) -> Callable[[Tree, Tree], tuple[Tree, Metrics]]:
        """Make the program of a task's step.

        Parameters
        ----------
        task
            Whose step.
        state, batch
            Examples on the device.
        say
            Told what is being done while a program is compiled.

        Returns
        -------
        (state, batch) -> (state, metrics). It owns the state it is given: go on with the one it returns.
        """
        if self.mode != "none":
            with self._policy(rematerialise=self.rematerialise):
                program = compile_step(task.step, state, batch, blocks=self.mode == "block", say=say)
            spare = self.rematerialise and self.device.type == "cpu"
            return _spare(program) if spare else lambda state, batch: (state, program(state, batch))
        if self.rematerialise:
            return_memory()

        def run(state: Tree, batch: Tree) -> tuple[Tree, Metrics]:
            with torch.no_grad(), self._policy(tape=True, rematerialise=self.rematerialise):
                return task.step(state, batch)

        return run

    def function(self, function: Callable[..., Tree]) -> Callable[..., Any]:
        """Make a program of any other pure function (an evaluation, a model's `advance`); it is not compiled."""

        def run(*args: Tree) -> Any:
            with torch.no_grad(), self._policy():
                return function(*args)

        return run

    def compiled(self, function: Callable[..., Tree], *examples: Tree, say: Callable[[str], None] | None = None) -> Program:
        """Make a compiled program of a function of trees, for arguments like the examples; see `compile_function`."""
        with self._policy():
            return compile_function(function, *examples, say=say)

    def _policy(self, **changes: Any) -> policy.using:
        return policy.using(compute=self.compute, profile=self.profile, **changes)


def _spare(program: Program) -> Callable[[Tree, Tree], tuple[Tree, Metrics]]:
    """Run a step so that free memory does not gather: its large values are given back at once, what is scattered at its end."""
    return_memory(_LARGE, _KEPT)
    trim()  # what making the first state has left behind

    def run(state: Tree, batch: Tree) -> tuple[Tree, Metrics]:
        metrics = program(state, batch)
        trim()
        return state, metrics

    return run


def start(run: Run, *, steps: int = 0, flops: float = 0.0, threads: int = 0) -> Engine:
    """Set the machine up for a run and decide what its flags leave open.

    Parameters
    ----------
    run
        Device, precision, compile mode and threads, each of which may be `auto`, and memory, of which `small` alone is
        decided here; see `choose_memory`.
    steps, flops
        Updates to come and floating-point operations of one: what `--compile auto` weighs.
    threads
        Threads of an earlier part of the run, which outrank the automatic choice.

    Raises
    ------
    UsageError
        If the device is not there, or a mode needs a compiler that is not there.
    """
    device = resolve_device(run.device)
    keep_memory()
    with suppress(UsageError):  # no place of our own: torch finds one
        cache_compiled(cache_directory("compiled"))
    used = set_threads(run.threads or threads)
    compute = compute_type(run.precision, device)
    mode, why = choose_mode(run.compile, device=device, dtype=compute, steps=steps, flops=flops)
    small = run.memory == "small"
    return Engine(device, compute, mode, used, why=why, profile=run.profile > 0, rematerialise=small, memory="as asked")
