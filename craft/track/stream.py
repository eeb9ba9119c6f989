"""An output that may go away: writing to it never raises."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

__all__ = ["Stream"]


class Stream(io.TextIOBase):
    """Pass text on to a file until that is closed, and drop it from then on.

    Parameters
    ----------
    file
        Where to write; none (a process without standard output): nowhere.
    """

    def __init__(self, file: TextIO | None) -> None:
        self._file = file

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the file; what it lacks is written as escapes."""
        return getattr(self._file, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Return whether people watch."""
        try:
            return self._file is not None and self._file.isatty()
        except ValueError:  # the file is closed
            return False

    def fileno(self) -> int:
        """Return the descriptor, from which the width of a terminal is read."""
        if self._file is None:
            raise OSError("got no standard output; expected a file")
        return self._file.fileno()

    def write(self, text: str) -> int:
        """Write what the file can encode, or nothing when it is gone."""
        if self._file is not None:
            try:
                self._file.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
            except (OSError, ValueError):
                self._give_up()
        return len(text)

    def flush(self) -> None:
        """Bring out what is written."""
        if self._file is not None:
            try:
                self._file.flush()
            except (OSError, ValueError):
                self._give_up()

    def _give_up(self) -> None:
        gone, self._file = self._file, None
        if gone is None or gone not in (sys.stdout, sys.__stdout__):
            return
        with contextlib.suppress(OSError, ValueError):  # Python flushes once more as it exits, and would fail there
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, gone.fileno())
            os.close(nowhere)
