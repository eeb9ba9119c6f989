"""The hooks that a run has: those of every run, the ones that its flags ask for, and the task's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from craft.engine import Engine
from craft.errors import UsageError
from craft.hooks import Hook, Measure, evaluation, keeping, measuring, reporting, sampling, saving, stopping
from craft.run import Run, Samples
from craft.step import Task, Tokenizer

__all__ = ["equip"]


def equip(
    task: Task, run: Run, engine: Engine, state: Any, tell: Callable[[str], None], measure: Measure | None = None
) -> list[Hook]:
    """Make the hooks of a run, in the order in which they are called.

    Parameters
    ----------
    task, run, engine
        What is trained, how, and on what.
    state
        Its state, on the engine's device: what is measured is found out with it.
    tell
        Takes a line for people.
    measure
        What evaluates; none: the task's own evaluation, on the engine.

    Raises
    ------
    UsageError
        If something is asked for that the task does not have, or two hooks have one name.
    """
    hooks = [reporting(run.track.every or max(1, task.steps // 100))]
    if task.evaluation is not None:
        hooks += _held_out(task, run, state, measure or measuring(engine))
    elif run.stop.patience:
        raise UsageError("got --stop.patience for a task without an evaluation; it has no held-out loss to wait for")
    elif run.checkpoint.best:
        raise UsageError("got --checkpoint.best for a task without an evaluation; it has no held-out measure")
    writes = task.model is not None and task.context and run.sample.tokens
    if writes and task.tokenizer is not None and _can_sample(run, task.tokenizer, tell):
        sample = run.sample
        hooks.append(sampling(sample.every or task.steps, engine, sample.prompt, sample.tokens, sample.temperature))
    hooks += task.hooks
    hooks.append(saving(run.checkpoint.every or max(1, task.steps // 10)))
    names = [hook.name for hook in hooks]
    if len(set(names)) < len(names):
        raise UsageError(f"got hooks of one name among {', '.join(names)}; name each with hooks.every(..., name=...)")
    return hooks


def _held_out(task: Task, run: Run, state: Any, measure: Measure) -> list[Hook]:
    often = run.evaluate.every or max(1, task.steps // 5)
    hooks = [evaluation(often, measure, run.evaluate.batches, whole=run.evaluate.whole)]
    if run.checkpoint.best:
        found = measure(task, state, 1)
        hooks.append(keeping(often, run.checkpoint.best, [f"eval/{name}" for name in found]))
    if run.stop.patience:
        hooks.append(stopping(often, run.stop.patience))
    return hooks


def _can_sample(run: Run, tokenizer: Tokenizer, tell: Callable[[str], None]) -> bool:
    """Refuse an unknown prompt before the first step, not after the last one; the default one is only left out."""
    prompt = run.sample.prompt
    try:
        return len(tokenizer.encode(prompt)) > 0
    except ValueError as error:
        if prompt != Samples().prompt:
            raise UsageError(f"the prompt of the samples does not fit the text: {error}") from error
        tell(f"no samples: {prompt!r} is not in the text; choose a --sample.prompt")
        return False
