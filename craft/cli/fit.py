"""What `--memory` changes before a task is built: parts of the batch, bits of the moments, and what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from craft.errors import UsageError
from craft.run import Run, budget

if TYPE_CHECKING:
    from craft import engine

__all__ = ["Fitted", "finer", "fit", "settings"]


class Fitted(NamedTuple):
    """An experiment that fits.

    Attributes
    ----------
    experiment
        The experiment, changed where that was needed.
    choice
        Whether activations are kept, and why; None: the run decides that when it starts.
    """

    experiment: Any
    choice: engine.Choice | None


class Setting(NamedTuple):
    """One way to run an experiment.

    Attributes
    ----------
    experiment
        The experiment.
    rematerialise
        Whether activations are computed again.
    what
        What is unlike the experiment that was given, in words.
    """

    experiment: Any
    rematerialise: bool
    what: str


def fit(experiment: Any, run: Run, *, fixed: bool = False) -> Fitted:
    """Change an experiment so that it fits the memory that it is given.

    Parameters
    ----------
    experiment, run
        What is to run, and `memory`.
    fixed
        Whether the experiment stays as it is: that of a run which is gone on with.

    Raises
    ------
    UsageError
        If nothing fits.
    """
    if fixed or run.memory in ("auto", "fast"):
        return Fitted(experiment, None)
    from craft import engine

    if run.memory == "small":
        narrow = _narrow(experiment)
        moments = "" if narrow is None else ", moments have 8 bits"
        return Fitted(narrow or experiment, engine.Choice(True, f"activations are computed again{moments}"))
    return _within(experiment, run)


def settings(experiment: Any) -> Iterator[Setting]:
    """Yield the ways to run an experiment, the fastest first: each takes what costs less before what costs more."""
    for value, bits in ((experiment, ""), (_narrow(experiment), ", moments of 8 bits")):
        if value is None:
            continue
        yield Setting(value, False, f"all activations are kept{bits}")
        yield Setting(value, True, f"activations are computed again{bits}")
        for parts in finer(value):
            again = f"activations are computed again, the batch in {parts} parts{bits}"
            yield Setting(attrs.evolve(value, accumulate=parts), True, again)


def _within(experiment: Any, run: Run) -> Fitted:
    from craft import engine
    from craft.engine import memory
    from craft.engine.predict import predict

    size = budget(run.memory)
    smallest, machine, process, former = None, None, 0, None
    task: Any = None
    for setting in settings(experiment):
        if setting.experiment is not former:
            task, former = setting.experiment.build(), setting.experiment
        if machine is None:
            machine = engine.start(run, steps=task.steps, flops=task.flops)
            process = engine.resident_bytes()
        one = predict(task, attrs.evolve(machine, rematerialise=setting.rematerialise), process=process)
        if one.peak <= size:
            return Fitted(setting.experiment, engine.Choice(setting.rematerialise, memory.fits(one, run.memory, setting.what)))
        if smallest is None or one.peak < smallest.peak:
            smallest = one
    assert smallest is not None
    raise UsageError(memory.refusal(smallest, run.memory))


def _narrow(experiment: Any) -> Any:
    """Return the experiment with moments of 8 bits; None where it has them, or its optimiser cannot."""
    optimiser: Any = getattr(experiment, "optimizer", None)
    if getattr(optimiser, "bits", 8) == 8:
        return None
    try:
        return attrs.evolve(experiment, optimizer=attrs.evolve(optimiser, bits=8))
    except ValueError:  # a descent without moments
        return None


def finer(experiment: Any) -> Iterator[int]:
    """Yield larger numbers of parts that divide the batch, each at least twice the one before."""
    parts, batch = getattr(experiment, "accumulate", None), getattr(experiment, "batch", None)
    if not isinstance(parts, int) or not isinstance(batch, int):
        return
    for more in range(2 * parts, batch + 1):
        if more >= 2 * parts and batch % more == 0:
            parts = more
            yield more
