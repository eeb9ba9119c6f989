"""The record of truth: JSON lines and plain text in the run's directory."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from craft import store
from craft.track.text import block, blocks, visible
from craft.track.tracker import Info, Report

__all__ = ["Jsonl", "read"]


class Jsonl:
    """Write `metrics.jsonl`, `timings.jsonl`, `samples.txt` and `log.txt`.

    `metrics.jsonl` holds functions of the configuration alone: a repeated or resumed run writes the same bytes. What depends
    on the clock goes to `timings.jsonl`. Rows, and samples, of steps that a resumed run makes again are cut at its start.
    A number that is not finite is `null`, and `nonfinite` names it: strict JSON has no NaN.
    """

    vital = True
    """A run without its record is not worth going on with: `Many` lets this sink's errors through."""

    def __init__(self) -> None:
        self._log: Path | None = None
        self._early: list[str] = []
        self._journals: tuple[store.Journal, ...] = ()
        self._unsynced = False

    def start(self, info: Info) -> None:
        """Open the files, cut what lies after `info.step`, and write the messages that came before."""
        info.directory.mkdir(parents=True, exist_ok=True)
        self._samples, self._log = info.directory / "samples.txt", info.directory / "log.txt"
        self._journals = tuple(store.Journal(info.directory / name) for name in ("metrics.jsonl", "timings.jsonl"))
        for journal in self._journals:
            journal.cut(lambda row: 0 < info.step >= row["step"])
        _cut_samples(self._samples, info.step)
        _append(self._log, "".join(self._early))
        self._early.clear()

    def report(self, report: Report) -> None:
        """Append one row to each file."""
        metrics, timings = self._journals
        metrics.append(_row({"step": report.step, "tokens": report.tokens}, report.metrics))
        if report.timings:
            timings.append(_row({"step": report.step}, report.timings))

    def sync(self) -> None:
        """Wait until every row is on the disk: before a checkpoint, which a resumed run starts from, becomes durable."""
        for journal in self._journals:
            journal.sync()
        if self._unsynced:
            store.sync(self._samples)
            self._unsynced = False

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Append a sample to `samples.txt`."""
        store.append(self._samples, block(step, prompt, text) + "\n")
        self._unsynced = True

    def message(self, text: str) -> None:
        """Append a line, with the time in UTC, to `log.txt`; before `start`, which names the directory, keep it."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = f"{now} {visible(text)}".replace("\n", "\n    ") + "\n"
        if self._log is None:
            self._early.append(line)
        else:
            _append(self._log, line)

    def finish(self, status: str, summary: dict[str, float]) -> None:
        """Bring every row to the disk and close the files."""
        self.message(status)
        if self._journals:
            self.sync()
        for journal in self._journals:
            journal.close()


def read(path: Path) -> list[dict[str, Any]]:
    """Read a file of rows back, with NaN for the numbers that JSON has no word for.

    Parameters
    ----------
    path
        A `metrics.jsonl` or `timings.jsonl`; a last line that a crash tore is left out.

    Returns
    -------
    One dict a row, in the order of the file; none where there is no file.

    Raises
    ------
    ValueError
        If a line before the last is not JSON.
    """
    rows = store.read_journal(path) if path.exists() else []
    for row in rows:
        row.update(dict.fromkeys(row.pop("nonfinite", ()), math.nan))
    return rows


def _row(head: dict[str, int], values: Mapping[str, float]) -> dict[str, Any]:
    clash = sorted({"step", "tokens", "nonfinite"} & set(values))
    if clash:
        raise ValueError(f"got a metric named {clash[0]}, which the record uses itself; choose another: train/{clash[0]}")
    return {**head, **values}


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.write(text)


def _cut_samples(path: Path, step: int) -> None:
    if not path.exists():
        return
    found = blocks(path.read_text(encoding="utf-8"))
    store.write(path, "".join(text for number, text in found if 0 < step >= number))
