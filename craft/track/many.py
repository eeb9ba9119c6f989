"""Several sinks as one, none of which can stop the run."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from craft.track.text import oneline
from craft.track.tracker import Info, Report, Tracker

__all__ = ["Many"]


class Many:
    """Hand everything to each sink; one that raises is named once to the others and then left out.

    Parameters
    ----------
    trackers
        Sinks, the most trusted first: they finish in reverse order, so that the first hears how the others ended.
    """

    def __init__(self, trackers: Iterable[Tracker]) -> None:
        self._trackers = list(trackers)

    @property
    def trackers(self) -> tuple[Tracker, ...]:
        """The sinks that are still served."""
        return tuple(self._trackers)

    def start(self, info: Info) -> None:
        """Open every sink."""
        self._each("start", info)

    def report(self, report: Report) -> None:
        """Hand on the numbers of one step."""
        self._each("report", report)

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Hand on a text that the model wrote."""
        self._each("sample", step, prompt, text)

    def message(self, text: str) -> None:
        """Hand on a line for people."""
        self._each("message", text)

    def status(self, text: str) -> None:
        """Tell the sinks that people watch what the run is busy with; empty when that is over."""
        self._each("status", text)

    def progress(self, step: int) -> None:
        """Tell the sinks that people watch that a step is done; cheap enough to call at every step."""
        self._each("progress", step)

    def sync(self) -> None:
        """Bring every row to the disk, in the sinks that keep a record: call it before a checkpoint is written."""
        self._each("sync")

    def finish(self, status: str, summary: dict[str, float]) -> None:
        """Close every sink, also when one of them is interrupted."""
        with ExitStack() as stack:
            for tracker in self._trackers:
                stack.callback(self._call, tracker, "finish", status, summary)

    def _each(self, method: str, *values: Any) -> None:
        for tracker in tuple(self._trackers):
            self._call(tracker, method, *values)

    def _call(self, tracker: Tracker, method: str, *values: Any) -> None:
        if tracker not in self._trackers:
            return
        function = getattr(tracker, method, None)
        if function is None:  # status and progress are for sinks that people watch, sync for those that keep a record
            return
        try:
            function(*values)
        except Exception as error:
            if getattr(type(tracker), "vital", False):  # a run without its record is not worth going on with
                raise
            self._trackers.remove(tracker)
            what = oneline(f"{type(error).__name__}: {error}")
            self.message(f"{type(tracker).__name__} failed in {method} and is left out from here on: {what}")
