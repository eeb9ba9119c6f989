"""A trace of some steps: where their time goes, as a picture for the browser and as a table of the costliest kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["FILE", "Profile"]

FILE = "trace.json"
_BEFORE = 3
"""Steps that are left out at first: they fill caches."""
_SHOWN = 10


class Profile:
    """Watches a number of steps, after the first few; without a number it does nothing.

    Parameters
    ----------
    steps
        How many steps to watch.
    directory
        Where `trace.json` goes; chrome://tracing and ui.perfetto.dev open it.
    say
        Told where it lies, and the ten kernels that took longest.
    """

    def __init__(self, steps: int, directory: Path, say: Callable[[str], None]) -> None:
        self.steps, self.directory, self.say = steps, directory, say
        self.done = 0
        self.watch: Any = None

    def before(self) -> None:
        """Begin, if it is time to; called before each step."""
        if self.watch is not None:
            self._collect(True)
        elif self.steps and self.done == _BEFORE:
            from torch.profiler import profile

            self.watch = profile()
            self.watch.__enter__()

    def after(self, *, last: bool) -> None:
        """End, if it is time to; called after each step."""
        self.done += 1
        if self.watch is not None and (last or self.done == _BEFORE + self.steps):
            self._finish(self.done - _BEFORE)
        elif self.watch is not None:
            self._collect(False)  # what happens between steps is no part of them
        elif self.steps and last and self.watch is None and self.done <= _BEFORE:
            self.say(f"no trace: the run ended after {self.done} steps, and the first {_BEFORE} are left out")

    def _collect(self, on: bool) -> None:
        self.watch.toggle_collection_dynamic(on, self.watch.activities)

    def _finish(self, steps: int) -> None:
        self.watch.__exit__(None, None, None)
        path = self.directory / FILE
        self.watch.export_chrome_trace(str(path))
        on_device = any(row.self_device_time_total for row in self.watch.key_averages())
        rows = sorted(self.watch.key_averages(), key=lambda row: -_time(row, on_device))
        total = sum(_time(row, on_device) for row in rows) or 1.0
        self.say(f"trace of {steps} steps: {path} (open it in chrome://tracing or ui.perfetto.dev); the costliest kernels:")
        for row in rows[:_SHOWN]:
            each = _time(row, on_device)
            name = row.key if len(row.key) <= 48 else f"{row.key[:45]}..."
            self.say(f"  {each / steps / 1e3:8.3f} ms a step  {each / total:5.1%}  {row.count // steps:4d}x  {name}")
        self.steps, self.watch = 0, None


def _time(row: Any, on_device: bool) -> float:
    return float(row.self_device_time_total if on_device else row.self_cpu_time_total)
