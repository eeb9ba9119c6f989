"""A damaged journal: what can be read of it is written into a new one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from craft.sweep.journal import COLUMNS, ENDED, NAMES, WAIT, BrokenJournalError, Journal, to_row

__all__ = ["recover"]


def recover(path: Path) -> tuple[Path, int, int]:
    """Write what can be read of a damaged journal into a new one beside it; the damaged one stays as it is.

    Returns
    -------
    The new file, how many trials it has, and how many of these have ended.

    Raises
    ------
    BrokenJournalError
        If not even its plan can be read.
    """
    path = Path(path)
    target = path.with_name(f"{path.stem}-recovered{path.suffix}")
    base = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=WAIT)
    try:
        about = dict(_readable(base, "about", "name, value"))
        if "plan" not in about:
            raise BrokenJournalError(f"{path} has lost its plan: nothing can be gone on with; start the sweep anew")
        rows = list({row[0]: row for row in _readable(base, "trial", COLUMNS) if _is_whole(row)}.values())
    finally:
        base.close()
    target.unlink(missing_ok=True)
    Journal.create(target, json.loads(about["plan"]), []).close()
    fresh = sqlite3.connect(target, isolation_level=None)
    try:
        marks = ", ".join("?" * len(NAMES))
        fresh.execute("BEGIN")
        fresh.executemany(f"INSERT OR REPLACE INTO trial ({COLUMNS}) VALUES ({marks})", rows)  # noqa: S608 - our own words
        fresh.execute("COMMIT")
    finally:
        fresh.close()
    return target, len(rows), sum(to_row(row).status in ENDED for row in rows)


def _readable(base: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows that can be read, from both ends up to where the damage is."""
    for order in ("ASC", "DESC"):
        try:
            yield from base.execute(f"SELECT {columns} FROM {table} ORDER BY rowid {order}")  # noqa: S608 - our own words
            return
        except sqlite3.DatabaseError:
            continue


def _is_whole(row: Sequence[Any]) -> bool:
    try:
        return to_row(row).status in ("waiting", "running", *ENDED)
    except (ValueError, TypeError, AttributeError):
        return False
