"""Saving while training goes on: the state is handed over as a copy, and a thread waits for the disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from craft import checkpoint
from craft.run import Checkpoints
from craft.types import Tree

__all__ = ["NotSavedError", "Saver"]


class NotSavedError(OSError):
    """A state that should be on the disk is not."""


class Saver:
    """Write the checkpoints of a run, one at a time.

    A save that fails is told at the next step, costs no step, and is tried anew at the next save; `finish` raises if the
    newest state was not saved. With `strict` the first failure is raised at the next step.

    Parameters
    ----------
    directory
        Where the checkpoints are.
    run
        When the state is saved and what is kept.
    tell
        Takes a line for people; called by the thread that calls `save`, `check` and `finish` alone.
    step
        The step whose state is on the disk already, -1: none.
    """

    def __init__(self, directory: Path, run: Checkpoints, tell: Callable[[str], None], step: int) -> None:
        self.directory, self.run, self.tell = directory, run, tell
        self.durable = self.wanted = step
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._flying: tuple[int, Future[str]] | None = None
        self._why = ""
        self._known: set[str] = set()

    def save(
        self,
        step: int,
        state: Tree,
        memory: dict[str, Any],
        extra: dict[str, Any],
        *,
        pending: dict[str, float] | None = None,
        best: int = -1,
        again: bool = False,
    ) -> None:
        """Take a copy of a state and write it in the background; the one before is waited for.

        Parameters
        ----------
        step
            Updates made.
        state, memory, extra, pending
            As for `checkpoint.stage`.
        best
            Step whose checkpoint stays whatever comes.
        again
            Whether the checkpoint of a step that is saved already is replaced.
        """
        if not again and step == self.wanted and (self._flying or self.durable == step):
            return
        self._land()
        self.wanted = step
        try:
            staged = checkpoint.stage(self.directory, state, memory=memory, extra=extra, pending=pending)
        except OSError as error:
            self._failed(step, error)
            return

        def commit() -> str:
            self._known.add(staged.commit())
            return self._prune(best)

        self._flying = step, self._pool.submit(commit)

    def check(self) -> None:
        """Tell how a save ended that has ended since."""
        if self._flying is not None and self._flying[1].done():
            self._land()

    def finish(self, *, quiet: bool = False) -> None:
        """Wait for the last save.

        Raises
        ------
        NotSavedError
            If the newest state that was to be saved is not on the disk; not if `quiet`.
        """
        strict = self.run.strict and not quiet
        self._land(strict=strict)
        self._pool.shutdown()
        if self.durable != self.wanted and not quiet:
            raise NotSavedError(
                f"the state of step {self.wanted} could not be saved ({self._why}); {self._left()} in {self.directory}: "
                "free space or mend the disk, then go on with --resume"
            )

    def _land(self, *, strict: bool | None = None) -> None:
        """Wait for the save that is under way, and tell if it failed."""
        if self._flying is None:
            return
        (step, future), self._flying = self._flying, None
        try:
            trouble = future.result()
        except OSError as error:
            self._failed(step, error, strict=strict)
            return
        self.durable = step
        if trouble:
            self.tell(trouble)

    def _failed(self, step: int, error: OSError, *, strict: bool | None = None) -> None:
        self._why = str(error)
        text = f"the checkpoint of step {step} was not written: {error}; {self._left()}"
        if self.run.strict if strict is None else strict:
            raise NotSavedError(text) from error
        self.tell(f"{text}. Training goes on, and the next save tries again")

    def _left(self) -> str:
        return f"the last good one is that of step {self.durable}" if self.durable >= 0 else "there is none before it"

    def _prune(self, best: int) -> str:
        """Delete what need not stay; that it cannot be deleted fails no save."""
        try:
            checkpoint.prune(self.directory, self.run.keep, best=best, every=self.run.keep_every, known=self._known)
        except OSError as error:
            return f"old checkpoints could not be deleted: {error}"
        return ""
