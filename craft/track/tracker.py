"""What every sink of numbers looks like. The loop hands over plain numbers and text; no sink can stop or slow it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import attrs

__all__ = ["Info", "Report", "Tracker"]


@attrs.frozen
class Info:
    """What a sink is told when a run starts."""

    name: str
    """Name of the run: the last part of its directory."""
    directory: Path
    """The run's directory; a sink writes below it."""
    config: dict[str, Any]
    """The complete configuration, as in config.json."""
    steps: int
    """Updates in the whole run."""
    step: int = 0
    """Updates made before this start: above 0 when a run is resumed."""
    project: str = "craft"
    """Project in trackers that have projects."""
    group: str = ""
    """Name that related runs share."""


@attrs.frozen
class Report:
    """The numbers of one step."""

    step: int
    """Updates made."""
    tokens: int
    """Tokens trained on so far."""
    metrics: dict[str, float]
    """Values by name (`train/loss`): functions of the configuration alone, equal in a repeated or resumed run."""
    timings: dict[str, float] = attrs.field(factory=dict)
    """Values that depend on the machine and the clock (`seconds`, `tokens_per_second`, `memory_mb`)."""

    def named(self) -> dict[str, float]:
        """Return all numbers under the names that dashboards show them by: those of the clock begin with `time/`."""
        return {**self.metrics, **{f"time/{name}": value for name, value in self.timings.items()}}


class Tracker(Protocol):
    """A sink of numbers.

    `Many` also calls, where a sink has them: `status(text)`, what the run is busy with (empty when that is over);
    `progress(step)`, a step is done; `sync()`, bring the record to the disk.
    """

    def start(self, info: Info) -> None:
        """Open the sink."""
        ...

    def report(self, report: Report) -> None:
        """Take the numbers of one step."""
        ...

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Take a text that the model wrote; it goes on from the prompt and does not repeat it."""
        ...

    def message(self, text: str) -> None:
        """Take a line for people."""
        ...

    def finish(self, status: str, summary: dict[str, float]) -> None:
        """Close the sink; status is `finished`, `stopped` or `failed`."""
        ...
