"""Progress for people: a live display on a terminal, one plain line a report elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Protocol, TextIO

from craft.track.stream import Stream
from craft.track.text import block, count, duration, oneline, visible
from craft.track.tracker import Info, Report

__all__ = ["Console", "Progress"]

PACE = 1.0
"""Seconds between plain lines, at least; a held-out loss and the last step are always printed."""

KEPT = 0.8
"""Share that a new report leaves of what older ones say of the speed: the last five count most, a slow start is forgotten."""


class Progress:
    """What is known of a running task, as fields of text, the most important first.

    Parameters
    ----------
    info
        What the run is told at its start.
    clock
        Seconds of a clock that never goes back.
    """

    def __init__(self, info: Info, clock: Callable[[], float]) -> None:
        self.info, self.clock = info, clock
        self.step = info.step
        self.status = ""
        self.since = clock()
        self.seen: dict[str, float] = {}
        self._mark: tuple[float, int] | None = None
        self._spent, self._made = 0.0, 0.0

    def advance(self, step: int) -> None:
        """Note that a step is done, and with it what the run was busy with before."""
        self.status = ""
        self.step = step
        if self._mark is None:
            self._mark = (self.clock(), step)

    def take(self, report: Report) -> None:
        """Note the numbers of a step."""
        self.step = report.step
        self.seen |= report.metrics | report.timings
        spent, made = self._since()
        self._spent, self._made = KEPT * self._spent + spent, KEPT * self._made + made
        self._mark = (self.clock(), report.step)

    def _since(self) -> tuple[float, int]:
        """Return the seconds and the updates since the last report, or the first update."""
        then, first = self._mark or (self.clock(), self.step)
        return self.clock() - then, self.step - first

    @property
    def left(self) -> float | None:
        """Seconds until the last step at the present speed; none while that is unknown."""
        since, more = self._since()
        spent, made = self._spent + since, self._made + more
        if made <= 0 or spent <= 0:
            return None
        return spent / made * max(0, self.info.steps - self.step)

    def losses(self) -> list[str]:
        """Return the losses; for a task without `train/loss`, its first numbers by name."""
        seen = self.seen
        if "train/loss" not in seen:
            rates = {"seconds", "tokens_per_second", "memory_mb"}
            return [f"{oneline(name)} {value:.4g}" for name, value in list(seen.items())[:4] if name not in rates]
        fields = [f"loss {seen['train/loss']:.4f} nats"]
        if "train/bits" in seen:
            fields.append(f"{seen['train/bits']:.4f} bits")
        if "eval/loss" in seen:
            fields.append(f"held-out {seen['eval/loss']:.4f}")
        return fields

    def machine(self) -> list[str]:
        """Return the speed and the memory."""
        fields = []
        if "tokens_per_second" in self.seen:
            fields.append(f"{count(self.seen['tokens_per_second'])} tok/s")
        if "memory_mb" in self.seen:
            fields.append(f"{self.seen['memory_mb']:.0f} MB")
        return fields

    def remaining(self) -> list[str]:
        """Return the time left."""
        return [] if self.left is None or self.step >= self.info.steps else [f"{duration(self.left)} left"]


def fit(fields: list[str], width: int) -> str:
    """Join as many of the first fields as the width, in characters, holds; the first always, cut if it must be."""
    line = fields[0][:width] if fields else ""
    for field in fields[1:]:
        if len(line) + 2 + len(field) > width:
            break
        line += f"  {field}"
    return line


class Display(Protocol):
    """A way to show progress."""

    def draw(self, progress: Progress, report: Report | None) -> None:
        """Show what is known now; `report` where there are new numbers."""
        ...

    def say(self, text: str) -> None:
        """Print lines that stay."""
        ...

    def close(self) -> None:
        """Leave the screen as it is."""
        ...


class Plain:
    """One line a report, at a sensible pace, for files and pipes.

    Parameters
    ----------
    stream
        Where the lines go.
    width
        Longest line, in characters.
    """

    def __init__(self, stream: Stream, width: int = 80) -> None:
        self._stream, self._width = stream, width
        self._last, self._status = float("-inf"), ""

    def draw(self, progress: Progress, report: Report | None) -> None:
        """Print a new status, and the numbers of a report when their time has come."""
        if progress.status not in ("", self._status):
            self.say(progress.status)
        self._status = progress.status
        if report is None or not self._due(progress, report):
            return
        self._last = progress.clock()
        fields = [f"{progress.step}/{progress.info.steps}", *progress.losses(), *progress.remaining(), *progress.machine()]
        self.say(fit(fields, self._width))

    def say(self, text: str) -> None:
        """Print lines."""
        self._stream.write(visible(text) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Do nothing: every line is out."""

    def _due(self, progress: Progress, report: Report) -> bool:
        wanted = report.step >= progress.info.steps or any(name.startswith("eval/") for name in report.metrics)
        return wanted or progress.clock() - self._last >= PACE


class Console:
    """Show a run on a terminal, or write plain lines where there is none; a closed output never stops the run.

    Parameters
    ----------
    file
        Where to write; none: standard output.
    clock
        Seconds of a clock that never goes back.
    """

    def __init__(self, file: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._clock = file, clock
        self._progress: Progress | None = None
        self._display: Display = Plain(Stream(file or sys.stdout))

    def start(self, info: Info) -> None:
        """Begin to show a run."""
        self._progress = Progress(info, self._clock)
        stream = Stream(self._file or sys.stdout)
        if stream.isatty() and os.environ.get("TERM") != "dumb":
            from craft.track.live import Live  # rich takes a while to import, and pipes do not need it

            self._display = Live(stream, self._progress)

    def progress(self, step: int) -> None:
        """Note that a step is done: it costs next to nothing."""
        if self._progress:
            self._progress.advance(step)

    def status(self, text: str) -> None:
        """Show what the run is busy with, such as compiling; empty when that is over."""
        if self._progress:
            self._progress.status, self._progress.since = text, self._clock()
            self._display.draw(self._progress, None)

    def report(self, report: Report) -> None:
        """Show the numbers of one step."""
        if self._progress:
            self._progress.status = ""
            self._progress.take(report)
            self._display.draw(self._progress, report)

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Print a sample, indented, as the characters it is made of."""
        self._display.say(block(step, prompt, text).rstrip("\n"))

    def message(self, text: str) -> None:
        """Print a line that stays."""
        self._display.say(text)

    def finish(self, status: str, summary: dict[str, float]) -> None:
        """Print how the run ended."""
        self._display.close()
        if self._progress:
            plural = "update" if self._progress.step == 1 else "updates"
            numbers = [f"{oneline(name)} {value:.4f}" for name, value in summary.items()]
            self._display.say(fit([f"{status} after {self._progress.step} {plural}", *numbers], 80))
