"""Packs: trials that differ in numbers, not in shapes, stepped by one program. Local letter: K, the trials of a pack.

A pack's state is the states of its trials, stacked; its step is the step of one of them under `vmap`. So each trial has its
own hyperparameters, seed, random keys, gradient norm and `halted`: one that diverges freezes alone. Sums are taken in another
order than in a run of its own, so that a trial's numbers are those of its solo run within rounding, not to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import attrs
import torch

from craft import evaluate, tree
from craft.engine import Engine, program_key
from craft.step import Evaluation, Task
from craft.types import Metrics, Tree

__all__ = ["Pack", "groups"]


def groups(tasks: Sequence[Task]) -> list[list[int]]:
    """Sort tasks into those that one program can step together.

    Two tasks are of one group if their steps are traced to one program: the same code and constants but for what the state
    holds, and states and batches of the same shapes. They must be judged alike, too: by the same measure on the same data. What
    cannot be told apart by its content is alone.

    Returns
    -------
    The places of the tasks, group by group, in the order of their first ones.
    """
    found: dict[Hashable, list[int]] = {}
    for place, task in enumerate(tasks):
        state, batch = task.init(task.seed), task.data.batch(0)
        functions = [task.step, *([task.evaluation.measure] if task.evaluation else [])]
        keys = tuple(program_key(function, state, batch) for function in functions)
        found.setdefault((keys, task.steps, task.data.fingerprint) if all(keys) else place, []).append(place)
    return list(found.values())


class Pack:
    """Trials of one group, somewhere on their way.

    Parameters
    ----------
    tasks
        The trials; of one of the `groups`.
    engine
        Where they run.
    states
        Their states, all after the same number of updates; none: those before the first one.
    say
        Told what is being done while the program is compiled.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        engine: Engine,
        states: Sequence[Tree] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.tasks, self.engine, self.say = list(tasks), engine, say
        made = [task.init(task.seed) for task in tasks] if states is None else list(states)
        self.done = int(made[0].step)
        self._place(made)

    def _place(self, states: list[Tree]) -> None:
        self.state = self.engine.place(tree.stack(states), consume=True)
        self._program: Callable[[Tree, Tree], tuple[Tree, Metrics]] | None = None
        self._measures: Callable[..., Any] | None = None
        orders = [_order(task.data, place) for place, task in enumerate(self.tasks)]
        self._first = {order: place for place, order in reversed(list(enumerate(orders)))}
        self._row = [list(self._first).index(order) for order in orders]

    @property
    def size(self) -> int:
        """Number of trials."""
        return len(self.tasks)

    def batch(self, step: int) -> Tree:
        """Return the batch of an update, from 0: one for all trials, or stacked ones where their orders differ."""
        found = [self.tasks[place].data.batch(step) for place in self._first.values()]
        if len(found) == 1:
            return found[0]
        return tree.map(lambda *leaves: torch.stack([leaves[row] for row in self._row]), *found)

    def step(self, batch: Tree | None = None) -> Metrics:
        """Make one update of every trial.

        Parameters
        ----------
        batch
            What `batch` returned, where it was made ahead.

        Returns
        -------
        What the step of one trial returns, with an axis of trials in front: (K,) each.
        """
        there = self.engine.send(self.batch(self.done) if batch is None else batch)
        if self._program is None:
            dims = (0, 0 if len(self._first) > 1 else None)
            task = attrs.evolve(self.tasks[0], step=torch.func.vmap(self.tasks[0].step, in_dims=dims, randomness="error"))
            self._program = self.engine.step(task, self.state, there, self.say)
        self.state, metrics = self._program(self.state, there)
        self.done += 1
        return metrics

    def measure(self, *, split: str = "validation", batches: int | None = None) -> list[dict[str, float]]:
        """Judge every trial on held-out data; the arguments are those of `evaluate.measure`.

        Raises
        ------
        ValueError
            If the trials' tasks have no evaluation.
        """
        judge = self._evaluation()
        if self._measures is None:
            self._measures = self.engine.function(torch.func.vmap(judge.measure, in_dims=(0, None), randomness="error"))
        return evaluate.measure_each(judge, self.state, self.engine, self._measures, split=split, batches=batches)

    def _evaluation(self) -> Evaluation:
        judge = self.tasks[0].evaluation
        if judge is None:
            raise ValueError("got trials without an evaluation; give their task one, or take a metric of training")
        return judge

    def states(self) -> list[Tree]:
        """Return the states of the trials, each in memory of its own, on the CPU."""
        return [tree.map(lambda leaf: leaf.cpu().clone(), state) for state in tree.unstack(self.state)]

    def one(self, place: int) -> Tree:
        """Return the state of a trial as it lies in the pack: the next step writes over it."""
        return tree.map(lambda leaf: leaf[place], self.state)

    def keep(self, places: Sequence[int]) -> Pack:
        """Return the pack of some of its trials, as they are now; a place may come twice, as population-based training asks."""
        states = self.states()
        return Pack([self.tasks[place] for place in places], self.engine, [states[place] for place in places], self.say)


def _order(data: Any, place: int) -> Hashable:
    """Return what two sources share that give the same batches; one that does not tell is like no other."""
    return getattr(data, "order", ("alone", place))
