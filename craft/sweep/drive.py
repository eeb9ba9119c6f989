"""Driving a pack: its trials are runs as any other, each with a directory, reports and checkpoints of its own.

The checkpoints of a pack count where every trial has one of the same step: what a crash left of some trials beyond that is made
again, with the same pack and so with the same bits. What has ended is told at once, and is in no later pack.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from craft import checkpoint, engine, hooks, record, store, track
from craft.books import Books, NotFiniteError
from craft.data import Prefetch
from craft.errors import UsageError
from craft.interrupt import Interrupt
from craft.opening import Opened, open_run
from craft.run import Run
from craft.step import Task
from craft.sweep.pack import Pack

__all__ = ["Outcome", "Trial", "drive"]


@attrs.frozen
class Trial:
    """A run of a pack."""

    number: int
    """Its number in the sweep."""
    task: Task
    """What is trained."""
    run: Run
    """How; `out` is its own directory."""
    name: str
    """Name of the experiment."""

    @property
    def directory(self) -> Path:
        """Where it lies."""
        assert self.run.out is not None
        return self.run.out


@attrs.frozen
class Outcome:
    """What became of a trial."""

    number: int
    """Which."""
    status: str
    """finished, diverged, stopped (by its own patience), failed, or waiting: it was interrupted and can be gone on with."""
    step: int
    """Updates made."""
    summary: dict[str, float]
    """The last value of everything that was logged, by name."""
    error: str = ""
    """What ended it, where it did not finish."""
    seconds: float = 0.0
    """Its share of the time."""


def drive(
    trials: Sequence[Trial],
    interrupt: Interrupt,
    *,
    say: Callable[[str], None] | None = None,
    watch: Callable[[int, dict[int, dict[str, float]]], None] | None = None,
    ended: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Train the trials of a pack, from their first step or from the last that all of them have saved.

    Parameters
    ----------
    trials
        Of one of the `groups`, with equal runs but for their directories.
    interrupt
        Where its signal is set, every trial is saved and the pack ends.
    say
        Told what is being done before the first step.
    watch
        Called after each step with its number and the numbers of each trial that goes on.
    ended
        Told what became of a trial as soon as it has: what a crash then breaks off does not make it again.

    Returns
    -------
    What became of each, in the order of the trials.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        for trial in trials:
            stack.enter_context(store.lock(trial.directory))
        pack = _Driven(trials, say, began, ended or (lambda outcome: None))
        try:
            pack.go(interrupt, watch or (lambda step, numbers: None))
        finally:
            pack.close()
    return [pack.outcomes[trial.number] for trial in trials]


class _Driven:
    """One call of `drive`."""

    def __init__(
        self, trials: Sequence[Trial], say: Callable[[str], None] | None, began: float, ended: Callable[[Outcome], None]
    ) -> None:
        self.trials, self.say, self.began, self.ended = list(trials), say, began, ended
        self.outcomes: dict[int, Outcome] = {}
        self.pack: Pack | None = None
        self._judged: dict[tuple[int, int | None], list[dict[str, float]]] = {}
        _agree(self.trials)
        mode = _mode(self.trials)
        self.trials = [attrs.evolve(trial, run=attrs.evolve(trial.run, compile=mode)) for trial in self.trials]
        self.opened = [self._open(place, trial) for place, trial in enumerate(self.trials)]
        self.places = list(range(len(self.trials)))
        """For each row of the pack, the trial in it."""

    def _open(self, place: int, trial: Trial) -> Opened:
        sinks = track.open(trial.run.track, console=False)
        resumed = (trial.directory / "config.json").is_file()

        def measure(task: Task, state: Any, batches: int | None) -> dict[str, float]:
            return self._measured(place, task, state, batches)

        return open_run(trial.task, trial.run, trial.name, trial.directory, sinks, resumed=resumed, measure=measure)

    def _measured(self, place: int, task: Task, state: Any, batches: int | None) -> dict[str, float]:
        """Judge all trials where the first one asks; the others are given what was found."""
        if self.pack is None:  # it is asked what there is to be measured, before the first step
            run = self.trials[place].run
            return hooks.measuring(engine.start(run, steps=task.steps, flops=task.flops))(task, state, batches)
        key = (self.pack.done, batches)
        if key not in self._judged:
            self._judged = {key: self.pack.measure(batches=batches), **self._of_now()}
        return self._judged[key][self.places.index(place)]

    def _of_now(self) -> dict[tuple[int, int | None], list[dict[str, float]]]:
        assert self.pack is not None
        return {key: found for key, found in self._judged.items() if key[0] == self.pack.done}

    def go(self, interrupt: Interrupt, watch: Callable[[int, dict[int, dict[str, float]]], None]) -> None:
        tasks, step = [trial.task for trial in self.trials], self.opened[0].step
        if self._complete(step):
            return
        self.pack = Pack(tasks, self.opened[0].engine, [one.state for one in self.opened], self.say)
        steps = tasks[0].steps
        while self._active and self._pack.done < steps:
            self._shrink()
            batches, size = Prefetch(self._pack.batch, steps), len(self.places)  # of this pack: another has other rows
            try:
                while self._pack.done < steps and 2 * len(self._active) > size:
                    self._step(batches, watch)
                    if interrupt.signal:
                        for place in self._active:
                            self._end(place, "waiting")
            finally:
                batches.close()

    @property
    def _pack(self) -> Pack:
        assert self.pack is not None
        return self.pack

    @property
    def _active(self) -> list[int]:
        return [place for place in self.places if self.trials[place].number not in self.outcomes]

    def _complete(self, step: int) -> bool:
        if step < self.trials[0].task.steps:
            return False
        for place, one in enumerate(self.opened):
            try:
                if one.pending is not None:
                    one.books.hooked(step, one.pending, one.state)
                    one.books.save(step, one.state, again=True)
            except Exception:  # noqa: BLE001 - as in a step
                self._end(place, "failed", step=step, error=traceback.format_exc(), save=False)
            else:
                self._end(place, "finished", step=step, save=False)
        return True

    def _step(self, batches: Prefetch, watch: Callable[[int, dict[int, dict[str, float]]], None]) -> None:
        metrics = self._pack.step(batches(self._pack.done))
        step, rows = self._pack.done, {place: row for row, place in enumerate(self.places)}
        halted = self._pack.state.halted.tolist()
        seen: dict[int, dict[str, float]] = {}
        for place in self._active:
            row, books = rows[place], self.opened[place].books
            mine = {name: value[row] for name, value in metrics.items() if value.ndim == 1}
            try:
                books.saver.check()
                numbers = books.checked(step, mine, halted=halted[row])
                seen[self.trials[place].number] = numbers
                self._kept(place, row, step, numbers)
            except NotFiniteError as error:
                self._end(place, "diverged", step=step - 1, error=str(error), save=False)
            except Exception:  # noqa: BLE001 - its own trouble, whatever it is, and none of the others
                self._end(place, "failed", step=step, error=traceback.format_exc(), save=False)
        watch(step, seen)

    def _kept(self, place: int, row: int, step: int, numbers: dict[str, float]) -> None:
        """Let a trial's hooks see a step, and do what they wish."""
        books: Books = self.opened[place].books
        last = step == self.trials[place].task.steps
        state = self._pack.one(row) if books.reads_state(step) or books.overdue else None
        wishes = books.at_state(step, numbers, state)
        if last or "stop" in wishes:
            self._end(place, "finished" if last else "stopped", error=wishes.get("stop", ""))
        elif "save" in wishes or books.overdue:
            books.save(step, self._pack.one(row))

    def _end(self, place: int, status: str, *, step: int | None = None, error: str = "", save: bool = True) -> None:
        """Close a trial; what cannot be saved makes it a failed one."""
        trial, books = self.trials[place], self.opened[place].books
        made = self._pack.done if step is None else step
        try:
            if save:
                books.save(made, self._pack.one(self.places.index(place)))
            books.saver.finish(quiet=status in ("diverged", "failed"))
        except OSError as problem:
            status, error = "failed", str(problem)
        if error:
            books.sinks.message(error)
        share = (time.monotonic() - self.began) / len(self.trials)
        outcome = self.outcomes[trial.number] = Outcome(trial.number, status, made, dict(books.summary), error, share)
        told = {"diverged": "failed", "waiting": "stopped"}.get(status, status)
        books.sinks.finish(told, {key: value for key, value in books.summary.items() if key.startswith("eval/")})
        self.ended(outcome)

    def _shrink(self) -> None:
        """Leave out those that have ended, where half of the pack has: each size is a program of its own."""
        active = self._active
        if 2 * len(active) <= len(self.places):
            self.pack = self._pack.keep([self.places.index(place) for place in active])
            self.places = active

    def close(self) -> None:
        """Close what is open still, where an error ends the pack."""
        for place, one in enumerate(self.opened):
            if self.trials[place].number not in self.outcomes:
                one.books.saver.finish(quiet=True)
                one.books.sinks.finish("failed", {})


def _mode(trials: Sequence[Trial]) -> Any:
    """Choose what is compiled: as it was when they began, as asked, or by what all of them have to compute together."""
    first = trials[0]
    stored = checkpoint.find(first.directory / record.CHECKPOINTS)
    if stored:
        return stored[-1].manifest["extra"]["compile"]
    if first.run.compile == "block" and len(trials) > 1:
        raise UsageError("got --compile block for a pack of trials, which has no blocks of its own; take step, none or auto")
    if first.run.compile != "auto" or len(trials) == 1:
        return first.run.compile
    chosen = engine.start(first.run, steps=first.task.steps, flops=first.task.flops * len(trials)).mode
    return "step" if chosen == "block" else chosen


def _agree(trials: Sequence[Trial]) -> None:
    """Take back the checkpoints beyond the last step that all have one of."""
    places = {trial.number: trial.directory / record.CHECKPOINTS for trial in trials}
    found = {number: {one.step for one in checkpoint.find(place) if _sound(one.path)} for number, place in places.items()}
    common = max(set.intersection(*found.values()), default=0)
    for number, place in places.items():
        for step in sorted(found[number] - set(range(common + 1)), reverse=True):
            store.remove(place / f"step-{step:08d}")


def _sound(path: Path) -> bool:
    try:
        checkpoint.open_checkpoint(path)
    except store.Corrupt:
        return False
    return True
