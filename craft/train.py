"""The loop: batch, step, hooks. The only one there is."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import torch

from craft import checkpoint, config, engine, record, resume, store, track, tree
from craft.data import Prefetch
from craft.equip import equip
from craft.errors import UsageError
from craft.hooks import Moment
from craft.interrupt import Interrupt
from craft.profile import Profile
from craft.run import Run
from craft.saving import Saver
from craft.step import Task, scaled
from craft.types import Tensor, Tree

__all__ = ["NotFiniteError", "OutOfMemoryError", "Result", "train"]


class NotFiniteError(ValueError):
    """A loss or a gradient was not finite; the weights are those from before it."""


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
        return _Loop(task, run, name, directory, resumed, console, memory, params).go()


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


class _Loop:
    """One call of `train`: the pieces of a run, tied together."""

    def __init__(
        self,
        task: Task,
        run: Run,
        name: str,
        directory: Path,
        resumed: bool,
        console: bool,
        memory: engine.Choice | None,
        params: Tree | None,
    ) -> None:
        self.choice, self.params = memory, params
        self.task, self.run, self.name, self.directory = task, run, name, directory
        self.checkpoints = directory / record.CHECKPOINTS
        self.stored = record.read(directory) if resumed else None
        self.sinks = track.open(run.track, console=console)
        self.summary: dict[str, float] = {}

    def go(self) -> Result:
        """Run to the end and close everything, whatever happens."""
        status = "failed"
        try:
            with Interrupt() as interrupt:
                self._prepare()
                try:
                    reason = self._steps(interrupt)
                except BaseException as error:
                    self.saver.finish(quiet=True)
                    if engine.is_out_of_memory(error):
                        raise self._out_of_memory(error) from error
                    raise
                self.saver.finish()
                status = "stopped" if self.step < self.task.steps else "finished"
                if reason:
                    self.sinks.message(f"stopped at step {self.step}: {reason}")
            return Result(self.state, self.directory, self.summary, status, interrupt.signal if status == "stopped" else 0)
        finally:
            self.sinks.finish(status, {key: value for key, value in self.summary.items() if key.startswith("eval/")})

    # -- before the first step

    def _prepare(self) -> None:
        task = self.task
        for place in (self.directory, self.checkpoints):
            store.sweep_litter(place)  # what a killed run left half done
        facts = record.facts(task, self.run, self.name)
        found = self._found(facts)
        if found is not None and found.step > task.steps:
            raise UsageError(f"got {task.steps} steps for {found.path}, which has made {found.step}; give as many or more")
        run = self.run if found is None else resume.same_mode(self.run, found.manifest["extra"])
        flops, threads = task.flops, 0 if found is None else found.manifest["extra"].get("threads", 0)
        left = task.steps - (found.step if found else 0)
        self.engine = engine.start(run, steps=left, flops=flops, threads=threads)
        self.state = task.init(task.seed)
        own = found is not None and self.stored is not None
        chosen = self.choice if found is None else resume.same_memory(self.run, found.manifest["extra"])
        chosen = chosen or engine.choose_memory(self.run.memory, task, self.engine, self.state)
        self.engine = attrs.evolve(self.engine, rematerialise=chosen.rematerialise, memory=chosen.why)
        if found is not None:
            like = scaled(self.state, found.manifest["extra"].get("precision") == "fp16")
            loaded = resume.stretch(checkpoint.load(found.path, like), task.steps)
            self.state = loaded if own else resume.retuned(loaded, like)
        elif self.params is not None:
            self.state = resume.warm(task, self.state, self.params)
        self.state = self.engine.place(scaled(self.state, self.engine.describe()["precision"] == "fp16"), consume=True)
        self.step = found.step if found else 0
        self.saver = Saver(self.checkpoints, self.run.checkpoint, self.sinks.message, self.step if own else -1)
        self.hooks = equip(task, self.run, self.engine, self.state, self.sinks.message)
        pending = found.manifest.get("pending") if found else None
        self.pending = None if pending is None else {name: math.nan if value is None else value for name, value in pending}
        memory = found.manifest["memory"] if found else {}
        self.memory: dict[str, dict[str, Any]] = {hook.name: dict(memory.get(hook.name, {})) for hook in self.hooks}
        changed = self._changed(found, facts)
        if not own or self.run.extend or resume.split(self.stored, facts):
            record.write(self.directory, facts, task.tokenizer.to_json() if task.tokenizer else None)
        self._open(facts, found, changed)
        if not own and (found is not None or self.params is not None):
            self._save()  # what a run begins with from outside must not be lost with the first steps

    def _found(self, facts: dict[str, Any]) -> checkpoint.Checkpoint | None:
        """Return the checkpoint that is gone on with, of this run or of the one that it is forked from."""
        self.former = self.stored
        if self.run.fork is not None:
            forked, facts["fork"], self.former = resume.fork(self.run.fork, facts, self.sinks.message)
            return forked
        if self.stored is None:
            return None
        resume.check(self.stored, facts, self.run.extend)
        facts |= {"fork": self.stored.data["fork"]} if "fork" in self.stored.data else {}
        found = checkpoint.latest(self.checkpoints, self.sinks.message)
        if found is None and ("fork" in self.stored.data or self.stored.data["run"].get("init")):
            raise UsageError(
                f"{self.directory} began with the state of another run and was stopped before it was saved; "
                "start it anew: --fork RUN or --init RUN, with another --out"
            )
        return found

    def _changed(self, found: checkpoint.Checkpoint | None, facts: dict[str, Any]) -> list[str]:
        """Return what the bits depend on that is not as it was when the checkpoint was written."""
        if found is None or self.former is None:
            return []
        was_all = {**found.manifest["extra"], "code": self.former.data["code"]}
        differing = config.diff(was_all, {**self.engine.describe(), "code": facts["code"]})
        changed = [f"{key} was {was!r}, is {now!r}" for key, (was, now) in differing.items()]
        if parts := resume.split(self.stored, facts):
            changed.append(f"accumulate was {parts[0]}, is {parts[1]}")
        if changed and self.run.resume_exact:
            raise UsageError(f"got --resume-exact, but {'; '.join(changed)}; bring it back, or leave --resume-exact out")
        return changed

    def _open(self, facts: dict[str, Any], found: checkpoint.Checkpoint | None, changed: list[str]) -> None:
        track_ = self.run.track
        self.sinks.start(
            track.Info(
                name=self.directory.name,
                directory=self.directory,
                config=facts,
                steps=self.task.steps,
                step=self.step,
                project=track_.project,
                group=track_.group,
            )
        )
        how = self.engine.describe()
        self.sinks.message(f"{self.name} in {self.directory}")
        self.sinks.message(
            f"{how['device']}, {how['precision']}, {how['threads']} threads; compile {how['compile']}: {self.engine.why}"
        )
        self.sinks.message(f"memory {self.run.memory}: {self.engine.memory}")
        if "fork" in facts and self.stored is None:
            self._say_fork(facts["fork"])
        elif found is not None:
            self.sinks.message(f"resumed after step {found.step}")
        for one in changed:
            self.sinks.message(f"perhaps not exact from here on: {one}")

    def _say_fork(self, fork: dict[str, Any]) -> None:
        fields = "; ".join(f"{name}: {was!r} there, {now!r} here" for name, (was, now) in sorted(fork["changed"].items()))
        self.sinks.message(f"forked from {fork['run']} after step {fork['step']}; changed: {fields or 'nothing'}")

    # -- steps

    def _steps(self, interrupt: Interrupt) -> str:
        """Go to the last step; return why the run ended before it, or nothing."""
        task = self.task
        self.clock = _Clock(self.step * task.data.tokens, self.engine.device)
        self.since_save = time.monotonic()
        if self.pending is not None:  # the run was broken off in the hooks of its last step; it may have more now
            self._hooked(self.step, self.pending)
            self._save(again=True)
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
        task = self.task
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
                wishes |= self._after(*lag)  # read while this step computes
            lag = (self.step, metrics, tree.leaves(self.state.halted)[0].clone())  # the next step may overwrite it
            if (
                self.engine.device.type == "cpu"
                or self._needs_state(self.step)
                or interrupt.signal
                or wishes
                or self._overdue()
            ):
                wishes |= self._at_state(*lag)
                ends = interrupt.signal or "stop" in wishes or self.step == task.steps
                if ends or "save" in wishes or self._overdue():
                    self._save()
                if ends:
                    return wishes.get("stop", "")
                wishes, lag = {}, None
            batch = self.engine.send(batches(self.step))

    def _overdue(self) -> bool:
        return time.monotonic() - self.since_save > 60 * self.run.checkpoint.minutes

    def _needs_state(self, step: int) -> bool:
        return step == self.task.steps or any(hook.reads_state and step % hook.every == 0 for hook in self.hooks)

    def _at_state(self, step: int, metrics: dict[str, Any], halted: Tensor) -> dict[str, str]:
        """Do the same where the state is that of the step; a hook that fails at the end must not cost the last steps."""
        numbers = self._checked(step, metrics, halted)
        if step < self.task.steps:
            return self._hooked(step, numbers)
        before = copy.deepcopy(self.memory)
        try:
            return self._hooked(step, numbers)
        except Exception:
            self.memory = before
            self._save(pending=numbers)
            raise

    def _after(self, step: int, metrics: dict[str, Any], halted: Tensor) -> dict[str, str]:
        """Check the numbers of a step, run the hooks that are due, and hand on what they logged."""
        return self._hooked(step, self._checked(step, metrics, halted))

    def _checked(self, step: int, metrics: dict[str, Any], halted: Tensor) -> dict[str, float]:
        if bool(halted.any()):
            raise self._not_finite(step, metrics)
        return {key: float(value) for key, value in metrics.items() if value.numel() == 1}

    def _hooked(self, step: int, numbers: dict[str, float]) -> dict[str, str]:
        last = step == self.task.steps
        values: dict[str, float] = {}
        wishes: dict[str, str] = {}
        compared: dict[str, float] = {}
        self.sinks.progress(step)
        began = time.monotonic()
        for hook in self.hooks:
            if step % hook.every == 0 or last:
                memory = self.memory[hook.name]
                write = self._writer(step)
                shared = (values, self.sinks.message, write, wishes, compared)
                hook.call(self.task, self.state, Moment(step, last, numbers, memory, *shared))
        self.clock.away += time.monotonic() - began
        if values:
            self.summary.update(values)
            tokens = step * self.task.data.tokens
            self.sinks.report(track.Report(step, tokens, values, self.clock.read(tokens)))
        return wishes

    def _writer(self, step: int) -> Callable[[str, str], None]:
        return lambda prompt, text: self.sinks.sample(step, prompt, text)

    def _not_finite(self, step: int, metrics: dict[str, Any]) -> NotFiniteError:
        shown = ", ".join(f"{key} {float(value):g}" for key, value in metrics.items() if value.numel() == 1)
        self.saver.finish(quiet=True)
        saved = self.saver.durable
        record.write_halted(self.directory, step, record.samples(self.task.data.batch(step - 1)), metrics)
        last = f"the last good checkpoint is step {saved}" if saved >= 0 else "no checkpoint was written yet"
        return NotFiniteError(
            f"step {step} gave a loss or gradient that is not finite ({shown}); it was not applied, "
            f"{last} in {self.checkpoints}: try a lower learning rate or gradient clipping; "
            f"craft replay {self.directory} --step {step} makes that step again"
        )

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
            f"{again}--memory small takes less. {saved} in {self.checkpoints}",
            self.directory,
            self.task.experiment,
        )

    def _save(self, *, pending: dict[str, float] | None = None, again: bool = False) -> None:
        self.sinks.sync()
        memory = copy.deepcopy(self.memory)
        best = memory.get("best", {}).get("step", -1)
        how = self.engine.describe()
        self.saver.save(self.step, self.state, memory, how, pending=pending, best=best, again=again)
        self.since_save = time.monotonic()
