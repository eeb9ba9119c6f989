"""Opening a run: everything between its flags and its first step, of a new one and of one that is gone on with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import attrs

from craft import checkpoint, config, engine, record, resume, store, track
from craft.books import Books
from craft.checkpoint import Checkpoint
from craft.engine import Choice, Engine
from craft.equip import equip
from craft.errors import UsageError
from craft.hooks import Measure
from craft.run import Run
from craft.saving import Saver
from craft.step import Task, scaled
from craft.types import Tree

__all__ = ["Opened", "open_run"]


class Opened(NamedTuple):
    """A run before its next step.

    Attributes
    ----------
    engine, state
        Where it runs, and its state there.
    books
        What is kept of it.
    step
        Updates made.
    pending
        What its last step returned, where it was broken off in the hooks of that step; else None.
    """

    engine: Engine
    state: Any
    books: Books
    step: int
    pending: dict[str, float] | None


def open_run(
    task: Task,
    run: Run,
    name: str,
    directory: Path,
    sinks: track.Many,
    *,
    resumed: bool = False,
    memory: Choice | None = None,
    params: Tree | None = None,
    measure: Measure | None = None,
) -> Opened:
    """Open a run; its directory is locked by the caller.

    Parameters
    ----------
    task, run, name
        What is trained, how, and its name.
    directory
        Where the run lies, or shall.
    sinks
        Where its numbers go; they are started.
    resumed
        Whether there is a run in the directory, which is gone on with.
    memory, params
        As for `train`.
    measure
        What evaluates; none: the task's own evaluation.

    Raises
    ------
    UsageError
        If what is resumed has another configuration or data, or something is asked for that cannot be.
    checkpoint.Mismatch
        If a checkpoint of what is resumed does not fit the task.
    """
    return _Opening(task, run, name, directory, sinks, resumed).open(memory, params, measure)


class _Opening:
    def __init__(self, task: Task, run: Run, name: str, directory: Path, sinks: track.Many, resumed: bool) -> None:
        self.task, self.run, self.name, self.directory, self.sinks = task, run, name, directory, sinks
        self.checkpoints = directory / record.CHECKPOINTS
        self.stored = record.read(directory) if resumed else None

    def open(self, memory: Choice | None, params: Tree | None, measure: Measure | None) -> Opened:
        task = self.task
        for place in (self.directory, self.checkpoints):
            store.sweep_litter(place)  # what a killed run left half done
        facts = record.facts(task, self.run, self.name)
        found = self._found(facts)
        if found is not None and found.step > task.steps:
            raise UsageError(f"got {task.steps} steps for {found.path}, which has made {found.step}; give as many or more")
        own = found is not None and self.stored is not None
        state = self._start(found, memory, params, own=own)
        step = found.step if found else 0
        saver = Saver(self.checkpoints, self.run.checkpoint, self.sinks.message, step if own else -1)
        hooks = equip(task, self.run, self.engine, state, self.sinks.message, measure)
        kept = found.manifest["memory"] if found else {}
        remembered: dict[str, dict[str, Any]] = {hook.name: dict(kept.get(hook.name, {})) for hook in hooks}
        books = Books(task, self.run, self.directory, self.engine, self.sinks, saver, hooks, remembered)
        changed = self._changed(found, facts)
        if not own or self.run.extend or resume.split(self.stored, facts):
            record.write(self.directory, facts, task.tokenizer.to_json() if task.tokenizer else None)
        self._tell(facts, found, changed, step)
        books.begin(step)
        if not own and (found is not None or params is not None):
            books.save(step, state)  # what a run begins with from outside must not be lost with the first steps
        return Opened(self.engine, state, books, step, _pending(found))

    def _start(self, found: Checkpoint | None, memory: Choice | None, params: Tree | None, *, own: bool) -> Any:
        """Set the engine up, and return the state that the run begins or goes on with."""
        task, extra = self.task, {} if found is None else found.manifest["extra"]
        run = self.run if found is None else resume.same_mode(self.run, extra)
        left = task.steps - (found.step if found else 0)
        self.engine = engine.start(run, steps=left, flops=task.flops, threads=extra.get("threads", 0))
        state = task.init(task.seed)
        chosen = memory if found is None else resume.same_memory(self.run, extra)
        chosen = chosen or engine.choose_memory(self.run.memory, task, self.engine, state)
        self.engine = attrs.evolve(self.engine, rematerialise=chosen.rematerialise, memory=chosen.why)
        if found is not None:
            like = scaled(state, extra.get("precision") == "fp16")
            loaded = resume.stretch(checkpoint.load(found.path, like), task.steps)
            state = loaded if own else resume.retuned(loaded, like)
        elif params is not None:
            state = resume.warm(task, state, params)
        return self.engine.place(scaled(state, self.engine.describe()["precision"] == "fp16"), consume=True)

    def _found(self, facts: dict[str, Any]) -> Checkpoint | None:
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

    def _changed(self, found: Checkpoint | None, facts: dict[str, Any]) -> list[str]:
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

    def _tell(self, facts: dict[str, Any], found: Checkpoint | None, changed: list[str], step: int) -> None:
        track_, sinks = self.run.track, self.sinks
        sinks.start(
            track.Info(
                name=self.directory.name,
                directory=self.directory,
                config=facts,
                steps=self.task.steps,
                step=step,
                project=track_.project,
                group=track_.group,
            )
        )
        how = self.engine.describe()
        sinks.message(f"{self.name} in {self.directory}")
        sinks.message(
            f"{how['device']}, {how['precision']}, {how['threads']} threads; compile {how['compile']}: {self.engine.why}"
        )
        sinks.message(f"memory {self.run.memory}: {self.engine.memory}")
        if "fork" in facts and self.stored is None:
            self._say_fork(facts["fork"])
        elif found is not None:
            sinks.message(f"resumed after step {found.step}")
        for one in changed:
            sinks.message(f"perhaps not exact from here on: {one}")

    def _say_fork(self, fork: dict[str, Any]) -> None:
        fields = "; ".join(f"{name}: {was!r} there, {now!r} here" for name, (was, now) in sorted(fork["changed"].items()))
        self.sinks.message(f"forked from {fork['run']} after step {fork['step']}; changed: {fields or 'nothing'}")


def _pending(found: Checkpoint | None) -> dict[str, float] | None:
    pending = found.manifest.get("pending") if found else None
    return None if pending is None else {name: math.nan if value is None else value for name, value in pending}
