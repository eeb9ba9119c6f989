"""What a step will take, before it runs: memory by part, and the work it does. Nothing is computed and nothing compiled.

The step is traced on tensors without content, in the mode it is to run in, and what is alive at each moment is summed up.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from craft import policy, store, tree
from craft.cache import cache_directory
from craft.engine.fingerprint import Unknown, fingerprint
from craft.engine.liveness import Work, add, examine, room, work_of
from craft.engine.plan import Empty
from craft.engine.program import surroundings, trace_step
from craft.errors import UsageError
from craft.step import Task
from craft.types import Tensor, Tree

__all__ = ["Step", "step_of"]


@attrs.frozen
class Step:
    """What one step takes.

    All but `nodes` and `work` are bytes.
    """

    parameters: int
    """The parameters."""
    optimizer: int
    """The rest of the state: moments, averages, counters."""
    batch: int
    """The batch."""
    activations: int
    """What the forward pass keeps for the backward pass."""
    transient: int
    """These, gradients and all else that lives within a step, at its peak."""
    evaluation: int
    """The same of an evaluation."""
    nodes: int
    """Operations that a compiler is given, which tell how long it takes; not bytes."""
    work: Work
    """What it computes."""

    @property
    def peak(self) -> int:
        """The most that tensors take at any time."""
        return self.parameters + self.optimizer + self.batch + max(self.transient, self.evaluation)


def step_of(task: Task, state: Tree | None = None, *, mode: str, compute: torch.dtype, rematerialise: bool = False) -> Step:
    """Estimate a task's step.

    Parameters
    ----------
    task
        Whose step.
    state
        Its first state, with or without content; made without content where it is not given.
    mode
        `none`, `block` or `step`.
    compute
        Type of the activations.
    rematerialise
        Whether they are computed again instead of kept.
    """
    key = _key(task, mode, compute, rematerialise)
    found = _stored(key)
    if found is None:
        found = _traced(task, state, mode, compute, rematerialise)
        _store(key, found)
    return found


def _key(task: Task, *how: Any) -> str:
    """Hash all that the step is made of; empty if that cannot be told."""
    batch = [(tuple(leaf.shape), leaf.dtype) for leaf in tree.leaves(task.data.batch(0))]
    judged = task.evaluation.measure if task.evaluation else None
    try:
        return fingerprint(task.step, task.init, judged, batch, how, surroundings())
    except Unknown:
        return ""


def _stored(key: str) -> Step | None:
    """Read an estimate that was made before: tracing takes seconds, and memory of its own."""
    try:
        read = json.loads((cache_directory("estimates") / f"{key}.json").read_text(encoding="utf-8"))
        return Step(**{**read, "work": Work(**read["work"])}) if key else None
    except (OSError, ValueError, TypeError, KeyError, UsageError):
        return None


def _store(key: str, step: Step) -> None:
    with suppress(OSError, UsageError):
        if key:
            folder = cache_directory("estimates")
            text = json.dumps({**attrs.asdict(step), "work": step.work._asdict()})
            store.write(folder / f"{key}.json", text)


def _traced(task: Task, state: Tree | None, mode: str, compute: torch.dtype, rematerialise: bool) -> Step:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with torch.no_grad():
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        if state is None:
            with fake:
                state = task.init(task.seed)
        else:
            state = tree.map(fake.from_tensor, state)
        batch = tree.map(fake.from_tensor, task.data.batch(0))
        with policy.using(compute=compute, rematerialise=rematerialise):
            step = _eager(fake, task.step, state, batch) if mode == "none" else _compiled(task, state, batch, mode)
        with policy.using(compute=compute):
            judged = _eager(fake, task.evaluation.measure, state, batch, tape=False).peak if task.evaluation else 0
    params = _bytes(state.params if hasattr(state, "params") else task.params(state))
    kept = step.turn or max(0, step.peak - params)  # where forward and backward are one piece, the gradients are not told apart
    return Step(params, _bytes(state) - params, _bytes(batch), kept, step.peak, judged, step.nodes, add(step.parts))


def _bytes(value: Tree) -> int:
    return sum(leaf.nbytes for leaf in tree.leaves(value))


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the memory of all tensors that are made, and the work, operation by operation."""

    def __init__(self, standing: Tree) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live, self.peak, self.turn, self.rooms = 0, 0, 0, 0
        self.seen: weakref.WeakSet[Any] = weakref.WeakSet(leaf.untyped_storage() for leaf in tree.leaves(standing))
        self.parts: list[Work] = []
        self.nodes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.turn and torch._C._current_graph_task_id() != -1:
            self.turn = self.live
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
                self.rooms += size if func is torch.ops.aten.empty.memory_format else 0
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


def _eager(fake: Any, function: Callable[..., Any], *args: Tree, tape: bool = True) -> _Watch:
    with fake, policy.using(tape=tape), _Watch(args) as watch:
        kept = function(*args)
    del kept
    found: _Watch = watch
    return found


def _compiled(task: Task, state: Tree, batch: Tree, mode: str) -> _Watch:
    """Go through the calls of the compiled step with tensors that have no content."""
    plan, pieces = trace_step(task.step, state, batch, blocks=mode == "block")
    calls = [attrs.evolve(entry, device="meta") if isinstance(entry, Empty) else entry for entry in plan.calls]
    given = [_bare(leaf) for leaf in tree.leaves((state, batch))]
    watch = _Watch(given)
    watch.nodes = sum(len(graph.graph.nodes) for graph in pieces.values())
    stands = {name: _stand_in(name, graph, watch) for name, graph in pieces.items()}
    program = attrs.evolve(plan, calls=calls).bind(stands)
    with watch:
        kept = program(given)
    del kept
    return watch


def _bare(value: Tensor) -> Tensor:
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _stand_in(name: str, graph: Any, watch: _Watch) -> Callable[[list[Tensor]], list[Tensor]]:
    """Make of a piece a function that returns tensors of the right shapes and says what the piece would have needed."""
    found = examine(graph)
    places = {node: number for number, node in enumerate(graph.graph.find_nodes(op="placeholder"))}
    (output,) = graph.graph.find_nodes(op="output")

    def run(values: list[Tensor]) -> list[Tensor]:
        if not watch.turn and name.startswith("block") and name.endswith("b"):
            watch.turn = watch.live - watch.rooms
        watch.peak = max(watch.peak, watch.live + found.peak)
        watch.parts.append(found.work)
        return [values[places[node]] if node in places else _bare(node.meta["val"]) for node in output.args[0]]

    return run
