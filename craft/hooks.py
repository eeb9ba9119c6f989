"""Hooks: plain functions of (task, state, report) that the loop calls every n steps.

A hook keeps what it must remember in `report.memory`, plain JSON that is saved with every checkpoint and comes back when
the run is resumed. The ones of this file are written like one's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import attrs
import torch

from craft import evaluate, generate
from craft.engine import Engine
from craft.errors import UsageError
from craft.step import Task
from craft.types import Context, resolve
from craft.writing import write

__all__ = [
    "Hook", "Measure", "Moment", "evaluation", "every", "keeping", "measuring", "reporting", "sampling", "saving", "stopping",
]  # fmt: skip


@attrs.define
class Moment:
    """What a hook learns of a step, and what it can do about it.

    `print`, slow work and errors are the hook's own: an error in a hook stops the run, as it would anywhere else.
    """

    step: int
    """Updates made."""
    last: bool
    """Whether this was the last update of the run."""
    metrics: dict[str, float]
    """What the step returned, its 0-d tensors as numbers."""
    memory: dict[str, Any]
    """What this hook remembers; JSON."""
    values: dict[str, float]
    """What hooks have logged at this step so far, by name."""
    say: Callable[[str], None]
    """Tell people a line."""
    write: Callable[[str, str], None]
    """Show a text that the model wrote: (prompt, text)."""
    wishes: dict[str, str] = attrs.field(factory=dict)
    """What the loop shall do after the hooks of this step."""
    compared: dict[str, float] = attrs.field(factory=dict)
    """Held-out measures on the batches of every evaluation, by name: what may be compared from step to step."""

    def log(self, **values: float) -> None:
        """Record numbers at this step, under their names (`eval/loss` through `log(**{"eval/loss": 1.0})`)."""
        self.values.update(values)

    def save(self) -> None:
        """Write a checkpoint after this step."""
        self.wishes["save"] = ""

    def stop(self, reason: str) -> None:
        """End the run after this step, with a checkpoint."""
        self.wishes["stop"] = reason


HookFunction = Callable[[Task, Any, Moment], None]
Measure = Callable[[Task, Any, int | None], dict[str, float]]
"""(task, state, number of batches or None for the whole split) -> held-out measures by name."""


class Hook(NamedTuple):
    """A function, how often it is called, and the name its memory is kept under."""

    name: str
    every: int
    call: HookFunction
    reads_state: bool = True


def every(steps: int, function: HookFunction, name: str = "") -> Hook:
    """Call a function of (task, state, report) every n steps, and after the last one.

    Raises
    ------
    UsageError
        If `steps` is not positive.
    """
    if steps < 1:
        raise UsageError(f"got a hook every {steps} steps; expected at least 1")
    return Hook(name or getattr(function, "__name__", "hook"), steps, function)


def reporting(steps: int) -> Hook:
    """Log the mean of what the steps returned since the last report, as `train/NAME`, losses in bits too, and the rate."""

    def report(task: Task, state: Any, report: Moment) -> None:
        sums = report.memory.setdefault("sums", {})
        for name, value in report.metrics.items():
            sums[name] = sums.get(name, 0.0) + value
        report.memory["count"] = report.memory.get("count", 0) + 1
        if report.step % steps and not report.last:
            return
        means = {name: sums[name] / report.memory["count"] for name in report.metrics if name != "weight"}
        report.log(**{f"train/{name}": value for name, value in means.items()})
        if "loss" in means and task.tokenizer is not None:
            report.log(**{"train/bits": means["loss"] / math.log(2)})
        if task.rate is not None:
            done = Context(hyper=getattr(state, "hyper", {}), progress=torch.tensor((report.step - 1) / task.steps))
            report.log(**{"train/lr": float(resolve(task.rate, done))})
        report.memory.clear()

    return Hook("report", 1, report, reads_state=False)


def measuring(engine: Engine) -> Measure:
    """Measure a state by its task's evaluation, on an engine."""
    programs: list[Callable[..., Any]] = []

    def measure(task: Task, state: Any, batches: int | None) -> dict[str, float]:
        assert task.evaluation is not None
        if not programs:
            programs.append(engine.function(task.evaluation.measure))
        return evaluate.measure(task.evaluation, state, engine, batches=batches, program=programs[0])

    return measure


def evaluation(steps: int, measure: Measure, batches: int, *, whole: bool = True) -> Hook:
    """Log the held-out measures as `eval/NAME`: on some batches during the run, and on the whole split at its end."""

    def evaluate_(task: Task, state: Any, report: Moment) -> None:
        for some in (batches, None)[: 1 + (report.last and whole)]:  # the whole split comes after what may be compared
            measured = measure(task, state, some)
            report.log(**{f"eval/{name}": value for name, value in measured.items()})
            if some is not None:
                report.compared.update({f"eval/{name}": value for name, value in measured.items()})
        loss = report.compared.get("eval/loss", math.nan)
        if math.isfinite(loss):
            report.memory["best"] = min(report.memory.get("best", math.inf), loss)
            report.log(**{"eval/best": report.memory["best"]})

    return Hook("evaluate", steps, evaluate_)


def stopping(steps: int, patience: int) -> Hook:
    """Stop when the held-out loss has not been lower for a number of evaluations."""

    def stop_early(task: Task, state: Any, report: Moment) -> None:
        loss = report.compared.get("eval/loss")
        if loss is None or report.last:
            return
        if loss < report.memory.get("best", math.inf):
            report.memory.update(best=loss, waited=0)
            return
        report.memory["waited"] = report.memory.get("waited", 0) + 1
        if report.memory["waited"] >= patience:
            report.stop(f"held-out loss not below {report.memory['best']:.4f} for {patience} evaluations")

    return Hook("stop", steps, stop_early)


def keeping(steps: int, metric: str, measured: Collection[str]) -> Hook:
    """Save a checkpoint wherever a measure is better than before; the best one is not deleted.

    Less is better, but of an accuracy. Compared are the batches that every evaluation takes, also at the end of the run.

    Raises
    ------
    UsageError
        If it is not one of what is measured.
    """
    if metric not in measured:
        raise UsageError(
            f"got --checkpoint.best {metric}, which is not measured; expected one of {', '.join(sorted(measured))}"
        )
    sign = -1.0 if "accuracy" in metric else 1.0

    def keep_best(task: Task, state: Any, report: Moment) -> None:
        value = report.compared[metric]
        if sign * value < sign * report.memory.get("value", sign * math.inf):
            report.memory.update(value=value, step=report.step)
            report.save()

    return Hook("best", steps, keep_best)


def sampling(steps: int, engine: Engine, prompt: str, tokens: int, temperature: float) -> Hook:
    """Let the model write on from a prompt."""

    def sample(task: Task, state: Any, report: Moment) -> None:
        text = "".join(write(task, task.params(state), engine, prompt, tokens, generate.Sampling(temperature=temperature)))
        report.write(prompt, text)

    return Hook("sample", steps, sample)


def saving(steps: int) -> Hook:
    """Save a checkpoint."""

    def save(task: Task, state: Any, report: Moment) -> None:
        report.save()

    return Hook("save", steps, save)
