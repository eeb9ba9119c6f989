"""A run as its record tells it: its configuration, the numbers of every report, and what the model wrote."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from craft import config, record, track
from craft.config.plain import is_number
from craft.errors import UsageError
from craft.report import judged, samples
from craft.report.judged import Judged

__all__ = ["CLOCK", "FLOPS", "MEMORY", "SPEED", "Story", "read"]

CLOCK, SPEED, MEMORY = "clock/seconds", "clock/tokens_per_second", "clock/memory_mb"
"""Where a row has the clock's numbers: seconds of all starts together, tokens a second, peak memory in MB."""

FLOPS = "flops"


@attrs.frozen
class Story:
    """What a run has recorded so far; it may be running, broken off or finished."""

    directory: Path
    """The run's directory."""
    config: dict[str, Any]
    """What config.json says."""
    rows: tuple[dict[str, float], ...]
    """One a report, by step: `step`, `tokens`, `flops` where they are known, the metrics, and the clock's numbers."""
    samples: tuple[samples.Sample, ...] = ()
    """What the model wrote, the oldest first."""
    tokenizer: str = ""
    """Digest of the tokenizer; empty: none."""
    judged: Judged | None = None
    """What `craft evaluate --detail` found of its last state; None: it was not asked."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics, in the order of their first report."""
        own = {"step", "tokens", FLOPS, CLOCK, SPEED, MEMORY}
        return tuple(dict.fromkeys(name for row in self.rows for name in row if name not in own))

    @property
    def step(self) -> int:
        """Updates made at the last report."""
        return int(self.rows[-1]["step"])

    @property
    def steps(self) -> int:
        """Updates in the whole run."""
        return int(self.config.get("steps", self.step))

    @property
    def finished(self) -> bool:
        """Whether the last update of the run is reported."""
        return self.step >= self.steps

    @property
    def fingerprint(self) -> str:
        """Digest of the data."""
        return str(self.config.get("data", {}).get("fingerprint", ""))

    @property
    def corpus(self) -> str:
        """Digest of the text alone, where the data is a text."""
        return str(self.config.get("data", {}).get("corpus", ""))

    @property
    def bytes_per_token(self) -> float | None:
        """Bytes of UTF-8 that a token of the validation split stands for, in the mean; None where the run does not say."""
        data = self.config.get("data", {})
        size, tokens = (data.get(name, {}).get("validation") for name in ("bytes", "tokens"))
        return size / tokens if size and tokens else None

    @property
    def parameters(self) -> int | None:
        """Numbers that are trained; None where the run does not say."""
        found = self.config.get("model", {}).get("parameters")
        return int(found) if is_number(found) else None

    def column(self, name: str) -> list[float]:
        """Return the values of a name, without the reports that lack it."""
        return [row[name] for row in self.rows if name in row]

    def last(self, name: str) -> float | None:
        """Return the last reported value of a name; None where there is none."""
        column = self.column(name)
        return column[-1] if column else None

    @property
    def seconds(self) -> float | None:
        """Wall time of all its starts together, in seconds."""
        return self.last(CLOCK)

    @property
    def tokens(self) -> float | None:
        """Tokens trained on."""
        return self.last("tokens")

    @property
    def flops(self) -> float | None:
        """Floating-point operations of the training; None where the run does not say what a step takes."""
        return self.last(FLOPS)

    @property
    def speed(self) -> float | None:
        """Tokens a second, the median of all reports."""
        column = self.column(SPEED)
        return statistics.median(column) if column else None

    @property
    def memory(self) -> float | None:
        """Peak memory in MB."""
        return max(self.column(MEMORY), default=None)


def read(directory: Path) -> Story:
    """Read a run's directory.

    Raises
    ------
    UsageError
        If it is not the directory of a run, or the run has reported nothing.
    """
    directory = Path(directory)
    try:
        data = record.read(directory).data
    except config.ConfigError as error:
        raise UsageError(str(error)) from error
    rows = _rows(directory, data)
    story = Story(
        directory,
        data,
        rows,
        samples.read(directory / "samples.txt"),
        _digest(directory / "tokenizer.json"),
        judged.read(directory / "evaluation.json", int(rows[-1]["step"])) if rows else None,
    )
    if not story.names:
        raise UsageError(f"got {directory}, which has no metrics yet; wait for its first report, or name another run")
    return story


def _rows(directory: Path, data: dict[str, Any]) -> tuple[dict[str, float], ...]:
    cost = data.get("model", {}).get("flops_per_step")
    rows: dict[int, dict[str, float]] = {}
    for row in track.read(directory / "metrics.jsonl"):
        numbers = _numbers(row)
        if "step" not in numbers:
            raise UsageError(f"got {directory / 'metrics.jsonl'} with a row that has no step; it is not the record of a run")
        step = int(numbers["step"])
        rows.setdefault(step, {}).update(numbers | ({FLOPS: cost * step} if is_number(cost) else {}))
    for step, clock in _clock(track.read(directory / "timings.jsonl")).items():
        if step in rows:
            rows[step] |= clock
    return tuple(rows[step] for step in sorted(rows))


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if is_number(value)}


def _clock(rows: Iterable[dict[str, Any]]) -> dict[int, dict[str, float]]:
    """Return the clock's numbers by step; `seconds`, which restart where a run was resumed, are counted on."""
    found: dict[int, dict[str, float]] = {}
    before = last = 0.0
    for row in map(_numbers, rows):
        seconds = row.get("seconds", math.nan)
        if seconds < last:
            before += last
        last = seconds if math.isfinite(seconds) else last
        numbers = {CLOCK: before + seconds, SPEED: row.get("tokens_per_second", 0.0), MEMORY: row.get("memory_mb", 0.0)}
        found[int(row.get("step", -1))] = {name: value for name, value in numbers.items() if value > 0}
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
