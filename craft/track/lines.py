"""What a run is to W&B: lines of JSON, the same from a run that goes on and from the record of one that is over."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeAlias

from craft.track.jsonl import read
from craft.track.text import block, blocks, parse
from craft.track.tracker import Info, Report

__all__ = ["AXES", "Line", "recorded", "report", "sample", "start"]

Line: TypeAlias = dict[str, Any]

AXES = ("step", "tokens", "time/seconds")
"""What everything is drawn over: updates, unless one chooses tokens or seconds."""


def start(info: Info, mode: str, identity: str) -> Line:
    """Return the line that opens a run.

    Parameters
    ----------
    info
        What a sink is told; what the record has of steps up to `info.step` goes ahead of what follows.
    mode
        `online` or `offline`.
    identity
        The run's id in W&B.
    """
    names = {"id": identity, "name": info.name, "project": info.project, "group": info.group}
    place = str(info.directory.resolve())
    return {"kind": "start", "mode": mode, **names, "config": info.config, "directory": place, "after": info.step}


def report(report: Report) -> Line:
    """Return the numbers of a step; those that are not finite are all NaN, as in the record."""
    values = {name: value if math.isfinite(value) else math.nan for name, value in report.named().items()}
    return {"kind": "report", "step": report.step, "values": {**values, "step": report.step, "tokens": report.tokens}}


def sample(step: int, prompt: str, text: str) -> Line:
    """Return a sample as it can be read from the record: controls and the blanks at the ends of lines are not in it."""
    return _sample(step, block(step, prompt, text))


def _sample(step: int, piece: str) -> Line:
    prompt, text = parse(piece)
    return {"kind": "sample", "step": step, "prompt": prompt, "text": text}


def recorded(directory: Path, last: int | None = None) -> list[Line]:
    """Return what a run would have handed over: its reports and samples, by step.

    Parameters
    ----------
    directory
        The run's directory.
    last
        The last step that counts; none: all do.

    Raises
    ------
    ValueError
        If the record is damaged.
    """
    clock = {row.pop("step"): row for row in read(directory / "timings.jsonl")}
    lines = _samples(directory / "samples.txt")
    for row in read(directory / "metrics.jsonl"):
        step, tokens = row.pop("step"), row.pop("tokens")
        lines.append(report(Report(step, tokens, row, clock.get(step, {}))))
    return sorted((line for line in lines if last is None or line["step"] <= last), key=lambda line: int(line["step"]))


def _samples(path: Path) -> list[Line]:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [_sample(step, piece) for step, piece in blocks(text)]
