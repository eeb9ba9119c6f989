"""The controller of a sweep on this machine: packs of its trials, one after the other, and the journal of what came of them.

Which trials form a pack is decided once and written into the journal, so that a sweep that is gone on with makes the same ones.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from craft import engine, store
from craft.errors import UsageError
from craft.interrupt import Interrupt
from craft.run import Run
from craft.sweep.drive import Outcome, Trial, drive
from craft.sweep.journal import ENDED, Journal, Row
from craft.sweep.pack import groups
from craft.sweep.space import Changes, applied

__all__ = ["JOURNAL", "Sweep", "begin", "trial_directory"]

JOURNAL = "journal.sqlite"
_LENT, _RENEWED = 60.0, 10.0
"""Seconds that a trial is lent for, and after which the loan is made longer."""


def begin(directory: Path, plan: dict[str, Any], trials: Sequence[Changes]) -> Journal:
    """Make a sweep.

    Parameters
    ----------
    directory
        Where it shall lie.
    plan
        What it is, as JSON data.
    trials
        What each trial changes.

    Raises
    ------
    UsageError
        If the directory is taken, or there is no trial.
    """
    if not trials:
        raise UsageError("got a space without a trial; give values, such as --grid lr=0.01,0.02")
    if directory.exists() and any(not path.name.startswith(".") for path in directory.iterdir()):
        raise UsageError(f"got --out {directory}, which is taken; choose another directory, or go on with --resume {directory}")
    return Journal.create(directory / JOURNAL, plan, trials)


def trial_directory(directory: Path, number: int) -> Path:
    """Return where a trial of a sweep lies."""
    return directory / "trials" / f"{number:04d}"


class Sweep:
    """A sweep that is being run by this process.

    Parameters
    ----------
    directory
        Where it lies.
    experiment
        What the trials change, as an attrs value with `build`.
    run
        How each of them runs.
    name
        Name of the experiment.
    pack
        Trials of a pack, at most.
    say
        Takes a line for people.
    watch
        Told of every step: its number, and the numbers of each trial that goes on.
    """

    def __init__(
        self,
        directory: Path,
        experiment: Any,
        run: Run,
        name: str,
        pack: int,
        say: Callable[[str], None],
        watch: Callable[[int, dict[int, dict[str, float]]], None] = lambda step, numbers: None,
    ) -> None:
        if pack < 1:
            raise UsageError(f"got --pack {pack}; expected 1 or more trials")
        self.directory, self.experiment, self.run, self.name = directory, experiment, run, name
        self.size, self.say, self.watch = pack, say, watch
        self.owner = f"{socket.gethostname()}:{os.getpid()}"

    def go(self) -> int:
        """Run what has not ended yet; return the number of the signal that stopped it, or 0.

        Raises
        ------
        store.Busy
            If another process runs it.
        """
        with store.lock(self.directory), Journal(self.directory / JOURNAL) as journal, Interrupt() as interrupt:
            for owner in {row.owner for row in journal.trials() if row.status == "running"}:
                journal.free(owner)  # the lock is ours: whoever had them is gone
            for numbers in self._packs(journal):
                if interrupt.signal:
                    break
                self._one(journal, numbers, interrupt)
            return interrupt.signal

    def _packs(self, journal: Journal) -> list[list[int]]:
        """Return which trials are stepped together: as it was decided when the sweep began."""
        rows = journal.trials()
        stored = journal.read("packs")
        if stored is None:
            self.say("sorting the trials by their programs")
            stored = [pack for group in self._groups(rows) for pack in _even(group, self.size)]
            journal.write("packs", stored)
            self.say(f"{len(rows)} trials in packs of {', '.join(str(len(pack)) for pack in stored)}")
        left = {row.number for row in rows if row.status not in ENDED}
        return [kept for pack in stored if (kept := [number for number in pack if number in left])]

    def _groups(self, rows: list[Row]) -> list[list[int]]:
        """Return the numbers of those that one program can step; one that cannot be built is alone, and will say why."""
        tasks: dict[int, Any] = {}
        wrong: list[list[int]] = []
        for row in rows:
            try:
                task = applied(self.experiment, row.changes).build()
                task.data.batch(0)
                tasks[row.number] = task
            except Exception:  # noqa: BLE001 - it is raised again, and recorded, where that trial is run
                wrong.append([row.number])
        numbers = list(tasks)
        return [*([numbers[place] for place in group] for group in groups(list(tasks.values()))), *wrong]

    def _one(self, journal: Journal, numbers: list[int], interrupt: Interrupt) -> None:
        with self._renewing():
            if got := journal.claim(self.owner, numbers, _LENT):
                self._drive(journal, got, interrupt)
        journal.free(self.owner)

    def _drive(self, journal: Journal, numbers: list[int], interrupt: Interrupt) -> None:
        """Drive a pack; one that does not fit into memory is halved, and what fails otherwise is told of each trial."""

        def ended(outcome: Outcome) -> None:
            if outcome.status != "waiting":
                self._record(journal, outcome)

        rows = {row.number: row for row in journal.trials()}
        try:
            drive([self._trial(rows[number]) for number in numbers], interrupt, say=self.say, watch=self.watch, ended=ended)
            return
        except Exception as error:  # noqa: BLE001 - it is recorded, and the other packs go on
            text = traceback.format_exc()
            left = [row.number for row in journal.trials() if row.number in numbers and row.status == "running"]
            fits = not engine.is_out_of_memory(error) or len(left) < 2
        if fits:
            for number in left:
                self._record(journal, Outcome(number, "failed", 0, {}, text))
            return
        self.say(f"a pack of {len(left)} did not fit into memory; trying halves")
        middle = (len(left) + 1) // 2  # here the error, and with it what it held, is gone
        for half in (left[:middle], left[middle:]):
            self._drive(journal, half, interrupt)

    def _record(self, journal: Journal, found: Outcome) -> None:
        told = (found.number, found.status, found.step, found.summary)
        journal.end(self.owner, *told, error=found.error, seconds=found.seconds)

    def _trial(self, row: Row) -> Trial:
        task = applied(self.experiment, row.changes).build()
        return Trial(row.number, task, attrs.evolve(self.run, out=trial_directory(self.directory, row.number)), self.name)

    @contextmanager
    def _renewing(self) -> Iterator[None]:
        """Keep what this process has while it works on it."""
        ended = threading.Event()

        def renew() -> None:
            with Journal(self.directory / JOURNAL) as own:
                while not ended.wait(_RENEWED):
                    own.renew(self.owner, _LENT)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _even(group: list[int], size: int) -> list[list[int]]:
    """Cut a group into packs of nearly one size: the fewest that are not larger than allowed."""
    number = -(-len(group) // size)
    ends = [place * len(group) // number for place in range(number + 1)]
    return [group[start:end] for start, end in itertools.pairwise(ends)]
