"""The loop: batch, step, hooks. The only one there is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from craft import engine, resume, store, track, tree
from craft.books import NotFiniteError as NotFiniteError
from craft.data import Prefetch
from craft.interrupt import Interrupt
from craft.opening import Opened, open_run
from craft.profile import Profile
from craft.run import Run
from craft.step import Task
from craft.types import Tensor, Tree

__all__ = ["NotFiniteError", "OutOfMemoryError", "Result", "train"]


class OutOfMemoryError(ValueError):
    """A step did not fit into memory; `directory` is that of the run, `experiment` what was trained."""

    def __init__(self, text: str, directory: Path, experiment: Any) -> None:
        super().__init__(text)
        self.directory, self.experiment = directory, experiment


class Result(NamedTuple):
    """What a run ended with.

    Attributes
    ----------
    state
        The last state.
    directory
        The run's directory.
    summary
        The last value of everything that was logged, by name.
    status
        `finished`, or `stopped` before the last step.
    signal
        Number of the signal that stopped it, or 0.
    """

    state: Any
    directory: Path
    summary: dict[str, float]
    status: str
    signal: int = 0


def train(
    task: Task,
    run: Run | None = None,
    *,
    name: str = "",
    console: bool = True,
    memory: engine.Choice | None = None,
    params: Tree | None = None,
) -> Result:
    """Run a task from its first step, or its last checkpoint, to its end.

    Parameters
    ----------
    task
        What is trained.
    run
        How and where; see `run.Run`.
    name
        Name of the experiment: its runs lie in outputs/NAME.
    console
        Whether progress is shown.
    memory
        What `run.memory` has come to, where that is known already.
    params
        Parameters that a new run starts from, in place of those that the task draws.

    Raises
    ------
    UsageError
        If the run's directory is taken, the device is not there, or what is resumed has another configuration or data.
    NotFiniteError
        If a loss or gradient is not finite: nothing of it has reached the weights, the last checkpoint is named.
    OutOfMemoryError
        If a step does not fit into memory.
    checkpoint.Mismatch
        If a checkpoint of what is resumed does not fit the task.
    """
    run = run or Run()
    engine.resolve_device(run.device)  # before there is a directory
    name = name or "run"
    directory, resumed = resume.place(run, name)
    with store.lock(directory):
        sinks, status, summary = track.open(run.track, console=console), "failed", {}
        try:
            with Interrupt() as interrupt:
                opened = open_run(task, run, name, directory, sinks, resumed=resumed, memory=memory, params=params)
                summary, loop = opened.books.summary, _Loop(task, run, opened)
                status, reason = loop.go(interrupt)
                if reason:
                    sinks.message(f"stopped at step {loop.step}: {reason}")
            return Result(loop.state, directory, summary, status, interrupt.signal if status == "stopped" else 0)
        finally:
            sinks.finish(status, {key: value for key, value in summary.items() if key.startswith("eval/")})


class _Loop:
    """One call of `train`: the steps of a run that is open."""

    def __init__(self, task: Task, run: Run, opened: Opened) -> None:
        self.task, self.run = task, run
        self.engine, self.state, self.books, self.step, self.pending = opened
        self.sinks, self.saver, self.directory = self.books.sinks, self.books.saver, self.books.directory

    def go(self, interrupt: Interrupt) -> tuple[str, str]:
        """Go to the last step or to where the run is stopped; return its status and why it was stopped, or nothing."""
        try:
            reason = self._steps(interrupt)
        except BaseException as error:
            self.saver.finish(quiet=True)
            if engine.is_out_of_memory(error):
                raise self._out_of_memory(error) from error
            raise
        self.saver.finish()
        return "stopped" if self.step < self.task.steps else "finished", reason

    def _steps(self, interrupt: Interrupt) -> str:
        task = self.task
        if self.pending is not None:  # the run was broken off in the hooks of its last step; it may have more now
            self.books.hooked(self.step, self.pending, self.state)
            self.books.save(self.step, self.state, again=True)
            if self.step == task.steps:
                return ""
        if self.step >= task.steps:
            self.sinks.message(f"complete: all {task.steps} steps are done")
            return ""
        batches = Prefetch(task.data.batch, task.steps)
        try:
            return self._updates(interrupt, batches)
        finally:
            batches.close()

    def _updates(self, interrupt: Interrupt, batches: Prefetch) -> str:
        task, books = self.task, self.books
        lag: tuple[int, dict[str, Any], Tensor] | None = None
        wishes: dict[str, str] = {}
        batch = self.engine.send(batches(self.step))
        program = self.engine.step(task, self.state, batch, self.sinks.status)
        profile = Profile(self.run.profile, self.directory, self.sinks.message)
        while True:
            profile.before()
            self.saver.check()
            self.state, metrics = program(self.state, batch)
            self.step += 1
            profile.after(last=self.step == task.steps)
            if lag is not None:
                wishes |= books.hooked(lag[0], self._numbers(*lag), self.state)  # read while this step computes
            lag = (self.step, metrics, tree.leaves(self.state.halted)[0].clone())  # the next step may overwrite it
            if self.engine.device.type == "cpu" or books.reads_state(self.step) or interrupt.signal or wishes or books.overdue:
                wishes |= books.at_state(self.step, self._numbers(*lag), self.state)
                ends = interrupt.signal or "stop" in wishes or self.step == task.steps
                if ends or "save" in wishes or books.overdue:
                    books.save(self.step, self.state)
                if ends:
                    return wishes.get("stop", "")
                wishes, lag = {}, None
            batch = self.engine.send(batches(self.step))

    def _numbers(self, step: int, metrics: dict[str, Any], halted: Tensor) -> dict[str, float]:
        return self.books.checked(step, metrics, halted=bool(halted.any()))

    def _out_of_memory(self, error: BaseException) -> OutOfMemoryError:
        shapes = [tuple(leaf.shape) for leaf in tree.leaves(self.task.data.batch(self.step))]
        batch = " x ".join(map(str, max(shapes, key=math.prod, default=())))
        parts = getattr(self.task.experiment, "accumulate", None)
        again = f"--accumulate {2 * parts} computes the batch in more parts, --oom halve does that by itself; " if parts else ""
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        saved = f"the last checkpoint is step {self.saver.durable}" if self.saver.durable >= 0 else "nothing was saved yet"
        now = f", in {parts} part{'s' * (parts > 1)}" if parts else ""
        return OutOfMemoryError(
            f"step {self.step + 1} did not fit into memory: a batch of {batch}{now} ({reason}); "
            f"{again}--memory small takes less. {saved} in {self.saver.directory}",
            self.directory,
            self.task.experiment,
        )
