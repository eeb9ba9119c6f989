"""Ending on request: the first SIGINT, SIGTERM or SIGHUP lets the step finish and the run save, the second ends at once."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupt"]

_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


class Interrupt:
    """While the block runs, `signal` is 0 or the number of the signal that asked for the end; 128 + it is the exit code."""

    def __init__(self) -> None:
        self.signal = 0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup, which means to go on
                    self._former[number] = signal.signal(number, self._asked)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            os._exit(128 + number)  # not an exception: it could be caught on its way out
        self.signal = number
        with suppress(OSError):
            os.write(2, b"\nstopping after this step and a checkpoint; once more ends at once\n")
