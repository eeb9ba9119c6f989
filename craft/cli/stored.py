"""A stored run as a task with its parameters: what `generate` and `evaluate` start from."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Literal

from craft import checkpoint, config, data, engine, record
from craft.cli.find import experiment_class, find
from craft.errors import UsageError
from craft.run import Run
from craft.step import Task, scaled

__all__ = ["Stored", "build", "load"]


class Stored:
    """A run's task, its last good state, and the engine they are on."""

    def __init__(self, task: Task, state: Any, machine: engine.Engine, step: int, record_: record.Record) -> None:
        self.task, self.state, self.engine, self.step, self.record = task, state, machine, step, record_


def _warn(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _chosen(directory: Path, which: str, last: checkpoint.Checkpoint) -> checkpoint.Checkpoint:
    """Return the checkpoint that is asked for; which one is the best, the last one remembers."""
    if which == "last":
        return last
    step = str(last.manifest["memory"].get("best", {}).get("step", "none")) if which == "best" else which
    every = checkpoint.find(directory / record.CHECKPOINTS)
    chosen = next((one for one in every if str(one.step) == step), None)
    if chosen is None:
        found = ", ".join(str(one.step) for one in every)
        remedy = "; the best is kept where the run has --checkpoint.best eval/loss" if which == "best" else ""
        raise UsageError(f"got --checkpoint {which}, but {directory} has those of the steps {found}{remedy}")
    return chosen


def build(stored: record.Record, experiment: str = "") -> Task:
    """Build the task of a stored run, with its tokenizer; the arguments and errors are those of `load`."""
    known = re.fullmatch(r"experiments\.(\w+)", stored.experiment["module"])  # a name, never a path
    if not experiment and not known:
        raise UsageError(
            f"{stored.directory} was made by {stored.experiment['module']}, which is not among the experiments; "
            "name its file: --experiment PATH.py"
        )
    cls = experiment_class(find(experiment or (known[1] if known else "")))
    value = config.from_dict(cls, stored.experiment["values"])
    tokenizer = stored.tokenizer
    task = value.build(data.load_tokenizer(tokenizer)) if tokenizer else value.build()
    assert isinstance(task, Task)
    return task


def load(
    directory: Path,
    *,
    experiment: str = "",
    which: str = "last",
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    threads: int = 0,
) -> Stored:
    """Build the task of a stored run and load its last good checkpoint.

    Parameters
    ----------
    directory
        The run's directory.
    experiment
        Name or path of the experiment; empty: the one that config.json names, looked up among the experiments.
    which
        `last`, `best` (see `run.Checkpoints.best`), or the number of a step.
    device, precision, threads
        Where and how it is computed.

    Raises
    ------
    UsageError
        If the directory is not a run, has no checkpoint, or its experiment is not found.
    """
    stored = record.read(directory)
    task = build(stored, experiment)
    found = checkpoint.latest(directory / record.CHECKPOINTS, _warn)
    if found is None:
        raise UsageError(f"got {directory}, which has no checkpoint yet; train it first: --resume {directory}")
    found = _chosen(directory, which, found)
    machine = engine.start(Run(device=device, precision=precision, compile="none", threads=threads))
    like = scaled(task.init(task.seed), found.manifest["extra"].get("precision") == "fp16")
    state = machine.place(checkpoint.load(found.path, like))
    return Stored(task, state, machine, found.step, stored)
