"""Steps of a stored run made again: the same state, batch and mode, so the same numbers to the bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import torch

from craft import checkpoint, config, engine, record, resume, tree
from craft.errors import UsageError
from craft.evaluate.judge import judge
from craft.run import Run
from craft.step import Task, scaled
from craft.types import Batch, Context, Tree

__all__ = ["Made", "Replay", "first_difference"]


class Made(NamedTuple):
    """A step that was made.

    Attributes
    ----------
    step
        Its number, from 1.
    samples
        Numbers of its samples; none where the data does not number them.
    batch
        SHA-256 of the batch's values, the first 12 digits.
    metrics
        What the step returned, its 0-d tensors as numbers.
    after
        Mean loss of the batch's samples by the weights after the update, without dropout; None where it was not asked for.
    """

    step: int
    samples: list[int]
    batch: str
    metrics: dict[str, float]
    after: float | None = None


class Replay:
    """A stored run, at one of its steps.

    Parameters
    ----------
    task
        The run's task, built from its configuration and with its tokenizer.
    directory
        The run's directory.
    before
        It begins at the newest good checkpoint that has made fewer updates than this, or at the run's own start.
    tell
        Takes a line for people: what is compiled, and how many steps are made again.

    Raises
    ------
    UsageError
        If the run began with another run's state and keeps no checkpoint before that step.
    """

    def __init__(self, task: Task, directory: Path, before: int, tell: Callable[[str], None]) -> None:
        self.task, self.directory, self.tell = task, directory, tell
        found = _before(directory, before)
        extra = {} if found is None else found.manifest["extra"]
        how = resume.same_mode(config.from_dict(Run, record.read(directory).data["run"]), extra)
        self.engine = engine.start(how, steps=task.steps, flops=task.flops, threads=extra.get("threads", 0))
        chosen = resume.same_memory(how, extra) or engine.choose_memory(how.memory, task, self.engine, task.init(task.seed))
        self.engine = attrs.evolve(self.engine, rematerialise=chosen.rematerialise)
        fp16 = self.engine.describe()["precision"] == "fp16"
        state = scaled(task.init(task.seed), fp16)
        if found is not None:
            state = checkpoint.load(found.path, state)  # with the horizon of its time: the run may have been extended since
            if before > int(getattr(state, "horizon", before)):
                state = resume.stretch(state, task.steps)
        self.state, self.step = self.engine.place(state, consume=True), 0 if found is None else found.step
        self._programs: dict[int, Any] = {}

    def to(self, step: int) -> None:
        """Make the steps until so many updates are made."""
        if step > self.step:
            self.tell(f"making {step - self.step} steps again, from {self.step} to {step}")
        while self.step < step:
            self.next()

    def next(self) -> Made:
        """Make the next step, and go on with the state it leaves."""
        self.state, made = self._made(self.task, self.state)
        self.step = made.step
        return made

    def peek(self, task: Task | None = None) -> Made:
        """Make the next step and forget it; with another task, such as one of a lower learning rate, make that one's.

        Raises
        ------
        UsageError
            If the other task has another state.
        """
        changed = task or self.task
        state = tree.map(lambda leaf: leaf.clone(), self.state)
        if task is not None:
            fresh = scaled(task.init(task.seed), self.engine.describe()["precision"] == "fp16")
            _same_state(self.state, fresh)
            state = resume.retuned(state, self.engine.place(fresh))
        after, made = self._made(changed, state)
        losses = self._losses(after)
        return made._replace(after=sum(losses) / len(losses)) if losses else made

    def losses(self) -> list[float]:
        """Return the mean loss of each sample of the next step, in nats a token, before its update; without dropout."""
        return self._losses(self.state)

    def _losses(self, state: Tree) -> list[float]:
        batch = self.task.data.batch(self.step)
        if self.task.model is None or not isinstance(batch, Batch):
            return []
        there = self.engine.send(batch)
        lent = Context(hyper=getattr(state, "hyper", {}), buffers=getattr(state, "buffers", ()), layout=there.layout)
        with torch.no_grad():
            log_BT = judge(self.task.model, state.params, there.inputs_BT, there.targets_BT, lent).log_BT
        weight_BT = there.weights_BT
        loss_B = -(log_BT * weight_BT).sum(-1) / weight_BT.sum(-1).clamp(min=1)
        return [float(loss) for loss in loss_B]

    def _made(self, task: Task, state: Tree) -> tuple[Tree, Made]:
        raw = task.data.batch(self.step)
        batch = self.engine.send(raw)
        if id(task) not in self._programs:
            if self.engine.mode != "none":
                self.tell("compiling")
            self._programs[id(task)] = self.engine.step(task, state, batch)
        state, metrics = self._programs[id(task)](state, batch)
        numbers = {name: float(value) for name, value in metrics.items() if value.numel() == 1}
        return state, Made(self.step + 1, record.samples(raw), _digest(raw), numbers)


def _digest(batch: Tree) -> str:
    digest = hashlib.sha256()
    for leaf in tree.leaves(batch):
        digest.update(leaf.contiguous().view(torch.uint8).numpy().tobytes() if leaf.ndim else repr(leaf.item()).encode())
    return digest.hexdigest()[:12]


def _before(directory: Path, step: int) -> checkpoint.Checkpoint | None:
    places = directory / record.CHECKPOINTS
    for found in reversed([one for one in checkpoint.find(places) if one.step < step]):
        try:
            return checkpoint.open_checkpoint(found.path)
        except ValueError:  # damaged: the one before it will do
            continue
    stored = record.read(directory).data
    if "fork" in stored or stored["run"].get("init"):
        raise UsageError(
            f"{directory} began with the state of another run and keeps no checkpoint before step {step}; "
            "keep more of them: --checkpoint.keep, --checkpoint.keep-every"
        )
    return None


def _same_state(own: Tree, fresh: Tree) -> None:
    there, here = ({name: tuple(leaf.shape) for name, leaf in tree.named(one).items()} for one in (own, fresh))
    differing = sorted(name for name in {**there, **here} if there.get(name) != here.get(name))
    if differing:
        raise UsageError(
            f"what was changed gives the state another shape ({differing[0]}); change what leaves it as it is, or train anew"
        )


def first_difference(one: Replay, other: Replay, last: int) -> tuple[Made, Made, list[str]] | None:
    """Make the steps of two runs side by side until they differ.

    Parameters
    ----------
    one, other
        Both at the same step.
    last
        The step to end with.

    Returns
    -------
    The first step of each that is not the same, and what is not: `batch`, `metrics`, or leaves of the state after it; None
    where all are equal.
    """
    while one.step < last:
        here, there = one.next(), other.next()
        what = [name for name in ("batch", "metrics") if getattr(here, name) != getattr(there, name)]
        mine, theirs = tree.named(one.state), tree.named(other.state)
        what += [name for name in mine if name in theirs and not _equal(mine[name], theirs[name]) and _trained(name)]
        what += sorted(set(mine) ^ set(theirs))
        if what:
            return here, there, what
    return None


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())


def _trained(name: str) -> bool:
    """Whether a leaf is what training changes, not what it is told: that is in the configurations."""
    return not name.startswith(("hyper", "horizon", "seed"))
