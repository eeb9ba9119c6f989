"""The live display: two lines that stay at the bottom of a terminal."""

from __future__ import annotations

import rich.console
import rich.live
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from craft.track.console import Progress, fit
from craft.track.stream import Stream
from craft.track.text import duration, oneline, visible
from craft.track.tracker import Report

__all__ = ["Live"]

RATE = 4.0
"""Times a second that the display is drawn: enough for clocks and a spinner, and no load on a small machine."""


class _Terminal(rich.console.Console):
    def show_cursor(self, show: bool = True) -> bool:
        return False  # a run that is killed would leave the terminal without a cursor


class Live:
    """Draw a progress bar and the numbers until closed; what is printed meanwhile goes above.

    Parameters
    ----------
    stream
        The terminal.
    progress
        What is known of the run; it is read again at every drawing.
    """

    def __init__(self, stream: Stream, progress: Progress) -> None:
        self._progress = progress
        self._console = _Terminal(file=stream, markup=False, highlight=False, emoji=False)  # type: ignore[arg-type]
        self._spinner = Spinner("dots" if stream.encoding.lower().startswith("utf") else "line")
        self._live = rich.live.Live(console=self._console, get_renderable=self._render, refresh_per_second=RATE)
        self._live.start()

    def draw(self, progress: Progress, report: Report | None) -> None:
        """Draw a new status at once; numbers wait for the next drawing, however many reports come."""
        if report is None:
            self._live.refresh()

    def say(self, text: str) -> None:
        """Print lines above the bar, as the characters they are made of."""
        self._console.print(Text(visible(text)), soft_wrap=True)

    def close(self) -> None:
        """Stop drawing; the last state stays on the screen."""
        self._progress.status = ""
        self._live.stop()

    def _render(self) -> RenderableType:
        return Group(self._bar(), self._numbers())

    def _bar(self) -> RenderableType:
        progress = self._progress
        steps = progress.info.steps
        after = "  ".join([f"{progress.step}/{steps}", *progress.remaining()])
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(no_wrap=True, max_width=24)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True, justify="right")
        line.add_row(Text(oneline(progress.info.name), overflow="ellipsis"), ProgressBar(steps, progress.step), Text(after))
        return line

    def _numbers(self) -> RenderableType:
        progress = self._progress
        width = self._console.width
        if progress.status:
            waited = duration(progress.clock() - progress.since)
            self._spinner.update(text=Text(fit([oneline(progress.status)[: width - 9], waited], width - 2)))
            return self._spinner
        return Text(fit([*progress.losses(), *progress.machine()], width), no_wrap=True, overflow="ellipsis")
