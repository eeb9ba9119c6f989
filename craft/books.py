"""The books of a run: what its hooks are told and remember, what it reports, and what it saves."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from craft import engine, record, track
from craft.engine import Engine
from craft.hooks import Hook, Moment
from craft.run import Run
from craft.saving import Saver
from craft.step import Task
from craft.types import Metrics

__all__ = ["Books", "NotFiniteError"]


class NotFiniteError(ValueError):
    """A loss or a gradient was not finite; the weights are those from before it."""


class Books:
    """What is kept of a run while its steps are made; whoever makes them tells it of each.

    Parameters
    ----------
    task, run, directory, engine
        What is trained, how, where it lies, and on what.
    sinks
        Where the numbers go.
    saver
        What writes the checkpoints.
    hooks
        Called as the steps come.
    memory
        What the hooks remember, by name.
    """

    def __init__(
        self,
        task: Task,
        run: Run,
        directory: Path,
        engine: Engine,
        sinks: track.Many,
        saver: Saver,
        hooks: list[Hook],
        memory: dict[str, dict[str, Any]],
    ) -> None:
        self.task, self.run, self.directory, self.engine = task, run, directory, engine
        self.sinks, self.saver, self.hooks, self.memory = sinks, saver, hooks, memory
        self.summary: dict[str, float] = {}
        """The last value of everything that was logged, by name."""

    def begin(self, step: int) -> None:
        """Start the clocks, after so many updates."""
        self._clock = _Clock(step * self.task.data.tokens, self.engine.device)
        self._saved = time.monotonic()

    def checked(self, step: int, metrics: Metrics, *, halted: bool) -> dict[str, float]:
        """Return what a step returned as numbers.

        Raises
        ------
        NotFiniteError
            If it has halted the run; halted.json says what it was given.
        """
        if halted:
            raise self._not_finite(step, metrics)
        return {key: float(value) for key, value in metrics.items() if value.numel() == 1}

    def hooked(self, step: int, numbers: dict[str, float], state: Any) -> dict[str, str]:
        """Call the hooks that are due after a step, and report what they logged.

        Parameters
        ----------
        step
            Updates made.
        numbers
            What the step returned.
        state
            The state; after that step, where a hook that is due reads it.

        Returns
        -------
        What the hooks wish: `save`, `stop` (and why).
        """
        last = step == self.task.steps
        values: dict[str, float] = {}
        wishes: dict[str, str] = {}
        compared: dict[str, float] = {}
        self.sinks.progress(step)
        began = time.monotonic()
        for hook in self.hooks:
            if step % hook.every == 0 or last:
                shared = (values, self.sinks.message, self._writer(step), wishes, compared)
                hook.call(self.task, state, Moment(step, last, numbers, self.memory[hook.name], *shared))
        self._clock.away += time.monotonic() - began
        if values:
            self.summary.update(values)
            tokens = step * self.task.data.tokens
            self.sinks.report(track.Report(step, tokens, values, self._clock.read(tokens)))
        return wishes

    def at_state(self, step: int, numbers: dict[str, float], state: Any) -> dict[str, str]:
        """Do the same where the state is that of the step; a hook that fails at the end must not cost the last steps."""
        if step < self.task.steps:
            return self.hooked(step, numbers, state)
        before = copy.deepcopy(self.memory)
        try:
            return self.hooked(step, numbers, state)
        except Exception:
            self.memory = before
            self.save(step, state, pending=numbers)
            raise

    def reads_state(self, step: int) -> bool:
        """Tell whether the hooks of a step need its state."""
        return step == self.task.steps or any(hook.reads_state and step % hook.every == 0 for hook in self.hooks)

    @property
    def overdue(self) -> bool:
        """Whether the last checkpoint is too long ago."""
        return time.monotonic() - self._saved > 60 * self.run.checkpoint.minutes

    def save(self, step: int, state: Any, *, pending: dict[str, float] | None = None, again: bool = False) -> None:
        """Save a state with all that goes on from it; the arguments are those of `Saver.save`."""
        self.sinks.sync()
        memory = copy.deepcopy(self.memory)
        best = memory.get("best", {}).get("step", -1)
        self.saver.save(step, state, memory, self.engine.describe(), pending=pending, best=best, again=again)
        self._saved = time.monotonic()

    def _writer(self, step: int) -> Callable[[str, str], None]:
        return lambda prompt, text: self.sinks.sample(step, prompt, text)

    def _not_finite(self, step: int, metrics: Mapping[str, Any]) -> NotFiniteError:
        shown = ", ".join(f"{key} {float(value):g}" for key, value in metrics.items() if value.numel() == 1)
        self.saver.finish(quiet=True)
        saved = self.saver.durable
        record.write_halted(self.directory, step, record.samples(self.task.data.batch(step - 1)), metrics)
        last = f"the last good checkpoint is step {saved}" if saved >= 0 else "no checkpoint was written yet"
        return NotFiniteError(
            f"step {step} gave a loss or gradient that is not finite ({shown}); it was not applied, "
            f"{last} in {self.saver.directory}: try a lower learning rate or gradient clipping; "
            f"craft replay {self.directory} --step {step} makes that step again"
        )


class _Clock:
    """How long the steps take, without the hooks between them."""

    def __init__(self, tokens: int, device: torch.device) -> None:
        self.start = self.since = time.monotonic()
        self.device = device
        self.tokens, self.away, self.rate = tokens, 0.0, 0.0

    def read(self, tokens: int) -> dict[str, float]:
        """Return seconds since the start, tokens a second since the last reading, and the peak of memory in MB."""
        now = time.monotonic()
        spent = now - self.since - self.away
        if spent > 1e-3:  # two steps that are read in one go have no rate of their own
            self.rate = (tokens - self.tokens) / spent
            self.since, self.tokens, self.away = now, tokens, 0.0
        return {"seconds": now - self.start, "tokens_per_second": self.rate, "memory_mb": engine.peak_megabytes(self.device)}
