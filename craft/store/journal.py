"""Journals: lines of JSON that are appended one by one and survive a crash, but for a torn last one."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from craft.store import disk
from craft.store.errors import Corrupt
from craft.store.file import write
from craft.store.strict import strict

__all__ = ["Journal", "read_journal"]


class Journal:
    """Objects in a file, one line of JSON each, appended only.

    Parameters
    ----------
    path
        The file; it is made where there is none, and loses the torn last line that a crash may have left.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._open()

    def _open(self) -> None:
        disk.op("open", self.path)
        new = not self.path.exists()
        self._end = 0 if new else sum(len(line) for line, _ in _lines(self.path))
        self._file = self.path.open("ab", buffering=0)
        try:
            self._trim()
            if new:
                disk.fsync_directory(self.path.parent)
        except BaseException:
            self._file.close()
            raise

    def _trim(self) -> None:
        if os.fstat(self._file.fileno()).st_size != self._end:
            disk.op("truncate", self.path, self._end)
            self._file.truncate(self._end)

    def append(self, obj: Mapping[str, Any]) -> None:
        """Add one object; it is the operating system's at once and on the disk after `sync`.

        Parameters
        ----------
        obj
            JSON data. Numbers that are not finite become null, and their places are listed under `nonfinite`.

        Raises
        ------
        ValueError
            If `obj` is not a dict of JSON data.
        """
        lost = list(obj.get("nonfinite", ())) if isinstance(obj, Mapping) else []
        plain = strict(obj, lost=lost)
        if not isinstance(plain, dict):
            raise ValueError(f"got {obj!r:.80}; expected a dict for a line of {self.path}")
        if lost:
            plain["nonfinite"] = sorted(set(lost))
        self._trim()  # a write that failed half way must not join this one
        line = (json.dumps(plain, allow_nan=False) + "\n").encode()
        disk.op("write", self.path, line)
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, "only a part of a line could be written: free space", str(self.path))
        self._end += len(line)

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        disk.fsync(self._file.fileno(), self.path)

    def cut(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Keep only the objects for which `keep` is true, durably; their lines stay as they were."""
        kept = [line for line, obj in _lines(self.path) if keep(obj)]
        self._file.close()
        try:
            write(self.path, b"".join(kept))
        finally:
            self._open()

    def close(self) -> None:
        """Sync and close; closing twice is closing once."""
        if not self._file.closed:
            try:
                self.sync()
            finally:
                self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a journal, without the torn last line that a crash may have left.

    Raises
    ------
    Corrupt
        If another line is broken; it is named by its number.
    """
    return [obj for _, obj in _lines(Path(path))]


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    with path.open("rb") as file:
        broken = 0
        for number, line in enumerate(file, 1):
            if broken:
                raise Corrupt(f"{path} is broken at line {broken}, which is not its last: mend or delete that line")
            obj = _object(line)
            if obj is None:
                broken = number
            else:
                yield line, obj


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        obj = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return obj if isinstance(obj, dict) and line.endswith(b"\n") else None
