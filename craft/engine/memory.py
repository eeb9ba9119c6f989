"""What is kept for the backward pass: everything, or only what lies between the blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import attrs
import torch

from craft import tree
from craft.engine.allocator import resident_bytes
from craft.engine.core import Engine
from craft.errors import UsageError
from craft.run import budget
from craft.step import Task
from craft.types import Tree

if TYPE_CHECKING:
    from craft.engine.predict import Prediction

__all__ = ["KEPT", "TOGETHER", "Choice", "choose_memory", "decided", "fits", "refusal"]

KEPT = 256 << 20
"""Bytes of activations that are kept by default, whatever else there is."""
TOGETHER = 1536 << 20
"""Bytes of state and activations up to which these are kept by default."""
_AT_MOST = 3.0
"""How often a number of the activations is kept, at most: as a product's input, its output, and in between."""


class Choice(NamedTuple):
    """What was chosen.

    Attributes
    ----------
    rematerialise
        Whether the activations of the blocks are computed again.
    why
        A phrase for people.
    """

    rematerialise: bool
    why: str


def decided(asked: str) -> Choice | None:
    """Return the choice where it depends on nothing but the words."""
    words = {"fast": Choice(False, "keeps all activations"), "small": Choice(True, "activations are computed again")}
    return words.get(asked)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory could not be had; torch has a class for a device's, and none for the host's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in text or "std::bad_alloc" in text)


def choose_memory(asked: str, task: Task, machine: Engine, state: Tree | None) -> Choice:
    """Choose whether a task's activations are kept.

    Parameters
    ----------
    asked
        `auto`, `fast`, `small` or a size; see `run.Run`.
    task, machine, state
        What runs, where, and its first state if there is one.

    Raises
    ------
    UsageError
        If nothing that can be chosen here fits the size.
    """
    size = budget(asked)
    if found := decided(asked):
        return found
    if not size:
        return _by_default(task, machine, state)
    from craft.engine.predict import predict  # the means of tracing take half a second to import

    process = resident_bytes() - sum(leaf.nbytes for leaf in tree.leaves(state or ()) if leaf.device.type == "cpu")
    tried: list[Prediction] = []
    for again in (False, True):
        one = predict(task, attrs.evolve(machine, rematerialise=again), state, process)
        if one.peak <= size:
            return Choice(again, fits(one, asked, "activations are computed again" if again else "keeps all activations"))
        tried.append(one)
    raise UsageError(refusal(min(tried, key=lambda one: one.peak), asked))


def fits(one: Prediction, asked: str, what: str) -> str:
    """Say what was chosen for a size."""
    return f"{what}: {one.peak / 2**20:.0f} MB of {asked} are predicted"


def refusal(smallest: Prediction, asked: str) -> str:
    """Say that nothing fits, and what to do."""
    return (
        f"got --memory {asked}, but the smallest setting is predicted to take {smallest.peak / 2**20:.0f} MB; "
        "allow that much, or take a smaller batch, context or model"
    )


def _by_default(task: Task, machine: Engine, state: Tree | None) -> Choice:
    if state is not None:
        room = max(KEPT, TOGETHER - sum(leaf.nbytes for leaf in tree.leaves(state)))
        if _bound(task, state) <= room:
            return Choice(False, f"keeps all activations, at most {room >> 20} MB")
    from craft.engine.estimate import step_of

    found = step_of(task, state, mode=machine.mode, compute=machine.compute)
    room = max(KEPT, TOGETHER - found.parameters - found.optimizer)
    if found.activations <= room:
        return Choice(False, f"keeps all activations, at most {room >> 20} MB")
    what = f"activations of {found.activations / 2**20:.0f} MB are computed again, more than {room >> 20} MB"
    return Choice(True, f"{what}; --memory fast keeps them")


def _bound(task: Task, state: Any) -> float:
    """Bound the activations from above without tracing: a matrix of the parameters has an input and an output a token."""
    params = state.params if hasattr(state, "params") else state
    sizes = [(leaf.shape[-1] + leaf.shape[-2]) * leaf[..., 0, 0].numel() for leaf in tree.leaves(params) if leaf.ndim > 1]
    return float(_AT_MOST * 4.0 * task.data.tokens * sum(sizes))
