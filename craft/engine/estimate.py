"""What a step will take, before it runs: memory by part, and the work it does. Nothing is computed and nothing compiled.

The step is traced on tensors without content, in the mode it is to run in, and what is alive at each moment is summed up.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from craft import policy, tree
from craft.engine.liveness import Work, add, examine, room, work_of
from craft.engine.plan import Empty
from craft.step import Task
from craft.types import Tensor, Tree

__all__ = ["Step", "step_of"]


@attrs.frozen
class Step:
    """What one step takes.

    Attributes are bytes, but for `work`.
    """

    parameters: int
    """The parameters."""
    optimizer: int
    """The rest of the state: moments, averages, counters."""
    batch: int
    """The batch."""
    transient: int
    """Activations, gradients and all else that lives within a step, at its peak."""
    evaluation: int
    """The same of an evaluation."""
    work: Work
    """What it computes."""

    @property
    def peak(self) -> int:
        """The most that tensors take at any time."""
        return self.parameters + self.optimizer + self.batch + max(self.transient, self.evaluation)


def step_of(task: Task, *, mode: str, compute: torch.dtype, rematerialise: bool = False) -> Step:
    """Estimate a task's step.

    Parameters
    ----------
    task
        Whose step.
    mode
        `none`, `block` or `step`.
    compute
        Type of the activations.
    rematerialise
        Whether they are computed again instead of kept.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with torch.no_grad():
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with fake:
            state = task.init(task.seed)
        batch = tree.map(fake.from_tensor, task.data.batch(0))
        with policy.using(compute=compute, rematerialise=rematerialise):
            transient, work = _eager(fake, task.step, state, batch) if mode == "none" else _compiled(task, state, batch, mode)
        with policy.using(compute=compute):
            measured = _eager(fake, task.evaluation.measure, state, batch, tape=False)[0] if task.evaluation else 0
    params = _bytes(task.params(state)) if not hasattr(state, "params") else _bytes(state.params)
    return Step(params, _bytes(state) - params, _bytes(batch), transient, measured, work)


def _bytes(value: Tree) -> int:
    return sum(leaf.nbytes for leaf in tree.leaves(value))


class _Watch(TorchDispatchMode):
    """Follows the memory of all tensors that are made, and the work, operation by operation."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self.seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self.parts: list[Work] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        flat = [value for value in _flat(results) if isinstance(value, Tensor)]
        fresh = False
        for value in flat:
            storage = value.untyped_storage()
            if storage not in self.seen:
                self.seen.add(storage)
                size = storage.nbytes()
                self.live += size
                weakref.finalize(storage, self._freed, size)
                fresh = True
        self.peak = max(self.peak, self.live + room(func, args))
        if not func.__name__.startswith("empty") and (fresh or func.__name__.partition(".")[0].endswith("_")):
            given = [value for value in _flat((args, kwargs)) if isinstance(value, Tensor)]
            self.parts.append(work_of(func, args, results, float(sum(value.nbytes for value in [*given, *flat]))))
        return results

    def _freed(self, size: int) -> None:
        self.live -= size


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in _flat(part)]
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in _flat(part)]
    return [value]


def _eager(fake: Any, function: Callable[..., Any], *args: Tree, tape: bool = True) -> tuple[int, Work]:
    with fake, policy.using(tape=tape), _Watch() as watch:
        kept = function(*args)
    del kept
    return watch.peak, add(watch.parts)


def _compiled(task: Task, state: Tree, batch: Tree, mode: str) -> tuple[int, Work]:
    """Go through the calls of the compiled step with tensors that have no content."""
    from craft.engine.program import trace_step

    plan, pieces = trace_step(task.step, state, batch, blocks=mode == "block")
    calls = [attrs.evolve(entry, device="meta") if isinstance(entry, Empty) else entry for entry in plan.calls]
    given = [_bare(leaf) for leaf in tree.leaves((state, batch))]
    watch = _Watch()
    stands = {name: _stand_in(graph, watch) for name, graph in pieces.items()}
    program = attrs.evolve(plan, calls=calls).bind(stands)
    with watch:
        kept = program(given)
    del kept
    return watch.peak, add(watch.parts)


def _bare(value: Tensor) -> Tensor:
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _stand_in(graph: Any, watch: _Watch) -> Callable[[list[Tensor]], list[Tensor]]:
    """Make of a piece a function that returns tensors of the right shapes and says what the piece would have needed."""
    found = examine(graph)
    places = {node: number for number, node in enumerate(graph.graph.find_nodes(op="placeholder"))}
    (output,) = graph.graph.find_nodes(op="output")

    def run(values: list[Tensor]) -> list[Tensor]:
        watch.peak = max(watch.peak, watch.live + found.peak)
        watch.parts.append(found.work)
        return [values[places[node]] if node in places else _bare(node.meta["val"]) for node in output.args[0]]

    return run
