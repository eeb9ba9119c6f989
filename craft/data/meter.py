"""How far long work on data has come, told on standard error: quiet for the first two seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType

__all__ = ["Meter"]

_QUIET, _OFTEN, _SELDOM = 2.0, 0.2, 30.0


class Meter:
    """Call it with what is done, the bytes that are done and the bytes in all (0: not known).

    On a terminal one line is written over and over; into a file or pipe a line goes every half a minute.
    """

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._stage, self._start, self._base, self._next = "", 0.0, 0, time.monotonic() + _QUIET
        self._dirty = False

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._dirty:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Tell how far a stage is."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._start, self._base = stage, now, done
        if now < self._next:
            return
        self._next = now + (_OFTEN if self._live else _SELDOM)
        line = _line(stage, done, total, done - self._base, now - self._start)
        sys.stderr.write(f"\r\033[K{line[:78]}" if self._live else f"{line}\n")
        sys.stderr.flush()
        self._dirty = self._live


def _line(stage: str, done: int, total: int, fresh: int, seconds: float) -> str:
    rate = fresh / seconds if seconds > 0.5 else 0.0
    words = [stage, f"{done / 1e6:,.0f} MB" + (f" of {total / 1e6:,.0f}" if total else "")]
    if total:
        words.append(f"{100 * done / total:.0f} %")
    if rate:
        words.append(f"{rate / 1e6:.1f} MB/s")
        left = (total - done) / rate
        words += [f"{left:.0f} s left" if left < 90 else f"{left / 60:.0f} min left"] if total else []
    return "  ".join(words)
