"""What saving costs: pairs of stretches of training, with one save and with none."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import attrs

from craft import engine, tree
from craft.models import Sequence
from craft.run import Checkpoints, Run
from craft.saving import Saver
from experiments.char_1m import Char1M

__all__ = ["Cost", "cost_of_saving"]


class Cost(NamedTuple):
    """What a save costs.

    Attributes
    ----------
    parameters
        Of the model.
    megabytes
        Of the state.
    held
        Seconds that training stands still for a save, the median.
    lost
        Seconds that a stretch of training with a save takes longer than one without, the median of pairs.
    least
        The least of these.
    """

    parameters: int
    megabytes: float
    held: float
    lost: float
    least: float

    @property
    def share(self) -> float:
        """Share of the training time at one save a minute."""
        return self.lost / 60


def cost_of_saving(
    folder: Path,
    width: int,
    depth: int,
    *,
    batch: int = 12,
    pairs: int = 7,
    seconds: float = 6.0,
    tell: Callable[[str], None] = lambda text: None,
) -> Cost:
    """Train a model with and without a save in turns, compiled, with all cores; what a save takes does not know the batch."""
    model = Sequence(width=width, depth=depth, tuned_width=128)
    task = attrs.evolve(Char1M(), model=model, batch=batch).build()
    machine = engine.start(Run(compile="block"), steps=10**6, flops=task.flops)
    state, batch = machine.place(task.init(0)), machine.send(task.data.batch(0))
    program = machine.step(task, state, batch)
    saver = Saver(folder / "checkpoints", Checkpoints(), tell, -1)
    steps = 1

    def stretch(number: int, save: int | None) -> tuple[float, float, Any]:
        nonlocal state
        began, held = time.perf_counter(), 0.0
        for index in range(number):
            if save is not None and index == 1:
                start = time.perf_counter()
                saver.save(save, state, {}, machine.describe())
                held = time.perf_counter() - start
            state, _ = program(state, batch)
            saver.check()
        if save is not None:
            saver._land()  # its end belongs to the stretch, also where this is short
        return time.perf_counter() - began, held, state

    stretch(3, None)
    once = stretch(5, None)[0] / 5
    steps = max(5, round(seconds / once))
    found = []
    for pair in range(pairs):
        without = stretch(steps, None)[0]
        with_, held, _ = stretch(steps, pair + 1)
        found.append((with_ - without, held))
        tell(f"pair {pair + 1} of {pairs}: {1000 * found[-1][0]:.0f} ms lost, {1000 * held:.0f} ms held")
    saver.finish()
    size = sum(leaf.nbytes for leaf in tree.leaves(state)) / 1e6
    parameters = sum(leaf.numel() for leaf in tree.leaves(state.params))
    lost = [one for one, _ in found]
    return Cost(parameters, size, statistics.median(held for _, held in found), statistics.median(lost), min(lost))
