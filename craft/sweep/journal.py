"""The journal of a sweep: which trials there are, who works on which, and what came of them, in one SQLite file.

Every change is one transaction that is on the disk when the call returns (write-ahead log, synchronous=FULL). A trial is lent
to a worker for some seconds, and the worker asks for more before these have passed; what a worker that died had is lent to
another one. So a trial's result is written once, by the one who holds it, however many work on one sweep.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from craft.errors import UsageError
from craft.store import disk

__all__ = ["COLUMNS", "ENDED", "NAMES", "WAIT", "BrokenJournalError", "Journal", "LostError", "Row", "to_row"]

FORMAT = 1
ENDED = ("finished", "diverged", "stopped", "failed")
"""What becomes of trials: all steps made; a number was not finite; given up for better ones; an error."""
WAIT = 30.0
"""Seconds to wait for another process that is writing."""
_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trial (
    number INTEGER PRIMARY KEY,
    changes TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'waiting',
    owner TEXT NOT NULL DEFAULT '',
    lent REAL NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    step INTEGER NOT NULL DEFAULT 0,
    result TEXT NOT NULL DEFAULT '{}',
    error TEXT NOT NULL DEFAULT '',
    seconds REAL NOT NULL DEFAULT 0
);
CREATE TABLE event (at REAL NOT NULL, number INTEGER, text TEXT NOT NULL);
"""


class BrokenJournalError(ValueError):
    """The file is no journal, or a damaged one."""


class LostError(ValueError):
    """A trial is not, or no longer, with the worker that says something of it."""


@attrs.frozen
class Row:
    """What the journal says of a trial."""

    number: int
    """Its number, from 0."""
    changes: dict[str, Any]
    """Configuration path -> value."""
    status: str
    """waiting, running, or one of `ENDED`."""
    owner: str
    """Who works on it, or did."""
    lent: float
    """Until when it is theirs, seconds since 1970."""
    attempts: int
    """How often it was begun."""
    step: int
    """Updates made, as far as was told."""
    result: dict[str, float]
    """Measures by name, the last ones that were told."""
    error: str
    """Traceback of what ended it."""
    seconds: float
    """Time that it took."""


class Journal:
    """A sweep's journal, opened; several processes may have one open at a time.

    Parameters
    ----------
    path
        The file; `create` makes it.
    clock
        Returns seconds since 1970.

    Raises
    ------
    UsageError
        If there is none.
    BrokenJournalError
        If it is damaged, or that of a newer Craft; `repair.recover` saves what can be read.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path, self.clock = Path(path), clock
        if not self.path.is_file():
            raise UsageError(f"got {self.path.parent} as a sweep, but it has no {self.path.name}; give a sweep's directory")
        self._base = _open(self.path)
        with self._told():
            found = dict(self._base.execute("SELECT name, value FROM about"))
        if int(found.get("format", 0)) != FORMAT:
            raise BrokenJournalError(f"{self.path} has format {found.get('format')}; this Craft reads {FORMAT}: upgrade Craft")
        self.plan: dict[str, Any] = json.loads(found["plan"])
        """What the sweep was begun with, as JSON data."""

    @classmethod
    def create(cls, path: Path, plan: dict[str, Any], trials: Sequence[dict[str, Any]], **more: Any) -> Journal:
        """Write a new journal; it is there as a whole or not at all.

        Parameters
        ----------
        path
            Where it shall be.
        plan
            What the sweep is, as JSON data.
        trials
            Changes of each trial.
        **more
            As for the class.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".tmp-{path.name}")
        part.unlink(missing_ok=True)
        base = sqlite3.connect(part, isolation_level=None)
        try:
            base.executescript(f"PRAGMA synchronous=FULL; BEGIN; {_SCHEMA}")
            base.executemany("INSERT INTO about VALUES (?, ?)", [("format", str(FORMAT)), ("plan", json.dumps(plan))])
            base.executemany(
                "INSERT INTO trial (number, changes) VALUES (?, ?)",
                [(number, json.dumps(changes)) for number, changes in enumerate(trials)],
            )
            base.execute("COMMIT")
        finally:
            base.close()
        disk.rename(part, path)
        disk.fsync_directory(path.parent)
        return cls(path, **more)

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- reading

    def trials(self) -> list[Row]:
        """Return all trials by number."""
        with self._told():
            rows = self._base.execute(f"SELECT {COLUMNS} FROM trial ORDER BY number").fetchall()  # noqa: S608 - our own words
        return [to_row(row) for row in rows]

    def events(self) -> list[tuple[float, int | None, str]]:
        """Return what happened, in order: when, to which trial (None: to the sweep), and what."""
        with self._told():
            return self._base.execute("SELECT at, number, text FROM event ORDER BY rowid").fetchall()

    def read(self, name: str) -> Any:
        """Return what was written under a name, JSON data; None if nothing was."""
        with self._told():
            found = self._base.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    # -- writing

    def write(self, name: str, value: Any) -> None:
        """Write JSON data under a name."""
        with self._writing():
            self._base.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value)))

    def add(self, trials: Sequence[dict[str, Any]]) -> list[int]:
        """Add trials that a search has thought of; return their numbers."""
        with self._writing():
            first = self._base.execute("SELECT COALESCE(MAX(number) + 1, 0) FROM trial").fetchone()[0]
            numbers = list(range(first, first + len(trials)))
            rows = [(number, json.dumps(changes)) for number, changes in zip(numbers, trials, strict=True)]
            self._base.executemany("INSERT INTO trial (number, changes) VALUES (?, ?)", rows)
        return numbers

    def note(self, text: str, number: int | None = None) -> None:
        """Write down what happened."""
        with self._writing():
            self._note(text, number)

    def claim(self, owner: str, numbers: Sequence[int], seconds: float) -> list[int]:
        """Take trials for a worker.

        Parameters
        ----------
        owner
            Who takes them.
        numbers
            Which it would like.
        seconds
            For how long, if it does not `renew`.

        Returns
        -------
        Those it gets: neither ended nor with somebody else.
        """
        now, got = self.clock(), []
        with self._writing():
            for number in numbers:
                changed = self._base.execute(
                    "UPDATE trial SET status = 'running', owner = ?, lent = ?, attempts = attempts + 1 WHERE number = ? AND "
                    "(status = 'waiting' OR (status = 'running' AND lent < ?))",
                    (owner, now + seconds, number, now),
                )
                if changed.rowcount:
                    got.append(number)
        return got

    def renew(self, owner: str, seconds: float) -> list[int]:
        """Keep what a worker has for some more seconds; return the numbers."""
        with self._writing():
            self._base.execute(
                "UPDATE trial SET lent = ? WHERE owner = ? AND status = 'running'", (self.clock() + seconds, owner)
            )
            found = self._base.execute("SELECT number FROM trial WHERE owner = ? AND status = 'running'", (owner,)).fetchall()
        return sorted(number for (number,) in found)

    def free(self, owner: str) -> list[int]:
        """Give back what a worker has, which is known to be gone or stops; return the numbers."""
        with self._writing():
            found = self._base.execute("SELECT number FROM trial WHERE owner = ? AND status = 'running'", (owner,)).fetchall()
            self._base.execute(
                "UPDATE trial SET status = 'waiting', owner = '', lent = 0 WHERE owner = ? AND status = 'running'", (owner,)
            )
        return sorted(number for (number,) in found)

    def tell(self, owner: str, number: int, step: int, result: dict[str, float]) -> None:
        """Say how far a trial is.

        Raises
        ------
        LostError
            If it is not with that worker.
        """
        with self._writing():
            self._own(owner, number, "step = ?, result = ?", (step, _numbers(result)))

    def end(
        self,
        owner: str,
        number: int,
        status: str,
        step: int,
        result: dict[str, float],
        *,
        error: str = "",
        seconds: float = 0.0,
    ) -> None:
        """Say what became of a trial, once and for all.

        Parameters
        ----------
        owner
            Who has it.
        number
            Which.
        status
            One of `ENDED`.
        step
            Updates made.
        result
            Measures by name; what is not finite is kept as text.
        error
            Traceback of what ended it.
        seconds
            Time that it took.

        Raises
        ------
        LostError
            If it is not with that worker: another one has it, or has ended it.
        """
        if status not in ENDED:
            raise ValueError(f"got the status {status!r}; expected {', '.join(ENDED)}")
        values = (status, step, _numbers(result), error, seconds)
        with self._writing():
            self._own(owner, number, "status = ?, step = ?, result = ?, error = ?, seconds = ?", values)
            self._note(status, number)

    def _own(self, owner: str, number: int, change: str, values: tuple[Any, ...]) -> None:
        done = self._base.execute(
            f"UPDATE trial SET {change} WHERE number = ? AND owner = ? AND status = 'running'",  # noqa: S608 - our own words
            (*values, number, owner),
        )
        if not done.rowcount:
            raise LostError(f"trial {number} is not with {owner}: another worker has taken it, or it has ended")

    def _note(self, text: str, number: int | None) -> None:
        self._base.execute("INSERT INTO event VALUES (?, ?, ?)", (self.clock(), number, text))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._told():
            self._base.execute("BEGIN IMMEDIATE")  # not later: two that have read cannot both write
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "full" in str(error) or "I/O" in str(error):
                raise OSError(f"{self.path} could not be written ({error}): free space, then go on with --resume") from error
            if "locked" in str(error):
                raise TimeoutError(f"another process has been writing to {self.path} for {WAIT:.0f} s; try again") from error
            raise _broken(self.path, error) from error
        except sqlite3.DatabaseError as error:
            raise _broken(self.path, error) from error


NAMES = tuple(field.name for field in attrs.fields(Row))
COLUMNS = ", ".join(NAMES)


def to_row(values: Sequence[Any]) -> Row:
    """Return what a row of the table says; `values` in the order of `NAMES`."""
    found = dict(zip(NAMES, values, strict=True))
    result = {name: float(value) for name, value in json.loads(found["result"]).items()}
    return Row(**{**found, "changes": json.loads(found["changes"]), "result": result})


def _numbers(result: dict[str, float]) -> str:
    plain = {name: value if abs(value) < float("inf") else str(value) for name, value in result.items()}
    return json.dumps(plain, allow_nan=False)


def _open(path: Path) -> sqlite3.Connection:
    base = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
    try:
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("PRAGMA synchronous=FULL")
        problem = base.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.DatabaseError as error:
        base.close()
        raise _broken(path, error) from error
    if problem != "ok":
        base.close()
        raise _broken(path, problem)
    return base


def _broken(path: Path, problem: object) -> BrokenJournalError:
    return BrokenJournalError(
        f"{path} is damaged ({problem}); what can be read of it is saved by: craft sweep repair {path.parent}"
    )
