"""Plans: what a program does, as a list of calls of compiled pieces. A plan is data, and is stored as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import torch

from craft.types import Tensor

__all__ = ["Call", "Direct", "Empty", "Entry", "Pieces", "Plan", "View"]

_PACKETS = {
    name: getattr(torch.ops.aten, name)
    for name in ("select", "unsqueeze", "view", "permute", "t", "transpose", "slice", "alias", "detach")
}
"""How a value can be looked at, by the names that plans are stored with."""


@attrs.frozen
class View:
    """Look at a value in another shape; nothing is computed."""

    source: int
    """Number of the value."""
    operation: str
    """Name of the operation."""
    arguments: list[Any]
    """Its further arguments."""
    result: int
    """Number of the new value."""


@attrs.frozen
class Empty:
    """Make a tensor that pieces write into."""

    shape: list[int]
    """Its shape."""
    dtype: str
    """Its type, as torch names it."""
    device: str
    """Its device."""
    result: int
    """Number of the new value."""


@attrs.frozen
class Call:
    """Run a piece."""

    piece: str
    """Name of the piece."""
    arguments: list[int]
    """Numbers of the values that it takes."""
    results: list[int]
    """Numbers of the values that it makes."""
    drop: list[int]
    """Values that nothing needs after it."""


@attrs.frozen
class Direct:
    """Run an operation of Craft's own that is not compiled: it is written in larger operations already."""

    operation: str
    """Its name, within `torch.ops.craft`."""
    arguments: list[Any]
    """Its arguments: [number of a value], or {"constant": a plain number}."""
    results: list[int]
    """Numbers of the values that it makes."""
    drop: list[int]
    """Values that nothing needs after it."""


Entry: TypeAlias = Call | Direct | Empty | View
Pieces: TypeAlias = Mapping[str, Callable[[list[Tensor]], Sequence[Tensor]]]
"""Compiled pieces by name, each from tensors to tensors."""


@attrs.frozen
class Plan:
    """The calls of a program, in order."""

    inputs: int
    """Number of inputs; they are the first values."""
    values: int
    """Number of all values."""
    views: list[View]
    """Views of inputs, made first."""
    calls: list[Entry]
    """What is done at every run."""
    outputs: list[int]
    """Values that are returned."""

    def bind(self, pieces: Pieces) -> Callable[[Sequence[Tensor]], list[Tensor]]:
        """Make the program of loaded pieces."""
        return _Runner(self, pieces)


class _Runner:
    """A plan with its pieces."""

    def __init__(self, plan: Plan, pieces: Pieces) -> None:
        self.plan = plan
        self.steps = [self._bound(entry, pieces) for entry in plan.calls]
        self.looked = sorted({view.source for view in plan.views if view.source < plan.inputs})
        self.former: tuple[list[Tensor | None], list[int]] = ([], [])
        """Inputs of the last run with their views, and the addresses of those that are looked at."""

    def _bound(self, entry: Entry, pieces: Pieces) -> tuple[Any, Any, Any, Any]:
        if isinstance(entry, Call):
            return pieces[entry.piece], entry.arguments, entry.results, entry.drop
        if isinstance(entry, Direct):
            return _direct(entry)
        if isinstance(entry, Empty):
            shape, dtype, device = entry.shape, getattr(torch, entry.dtype), torch.device(entry.device)
            return (lambda taken: [torch.empty(shape, dtype=dtype, device=device)]), [], [entry.result], []
        packet, more = _PACKETS[entry.operation], entry.arguments
        return (lambda taken: [packet(taken[0], *more)]), [entry.source], [entry.result], []

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        values = self._viewed(inputs)
        for run, taken, made, drop in self.steps:
            for place, value in zip(made, run([values[i] for i in taken]), strict=True):
                values[place] = value
            for i in drop:
                values[i] = None
        return [values[i] for i in self.plan.outputs]  # type: ignore[misc]

    def _viewed(self, inputs: Sequence[Tensor]) -> list[Tensor | None]:
        """Place the inputs and their views; the views of a state that is written over stay the same ones."""
        plan = self.plan
        values: list[Tensor | None] = [*inputs, *([None] * (plan.values - plan.inputs))]
        if not plan.views:
            return values
        seen, known = self.former  # read once: another thread may run this program, too
        places = [inputs[i].data_ptr() for i in self.looked]
        moved = {i for n, i in enumerate(self.looked) if not seen or inputs[i] is not seen[i] or places[n] != known[n]}
        for view in plan.views:
            if view.source in moved:
                moved.add(view.result)
                values[view.result] = _PACKETS[view.operation](values[view.source], *view.arguments)
            else:
                values[view.result] = seen[view.result]
        self.former = values[: plan.inputs + len(plan.views)], places
        return values


def _direct(entry: Direct) -> tuple[Any, Any, Any, Any]:
    operation = getattr(torch.ops.craft, entry.operation).default
    given = entry.arguments
    taken = [argument[0] for argument in given if isinstance(argument, list)]

    def run(values: list[Tensor]) -> Sequence[Tensor]:
        left = iter(values)
        found = operation(*(next(left) if isinstance(argument, list) else argument["constant"] for argument in given))
        return [found] if isinstance(found, Tensor) else found

    return run, taken, entry.results, entry.drop
