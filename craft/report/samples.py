"""What a model wrote during its run, read back from samples.txt."""

from __future__ import annotations

import json
import re
from pathlib import Path

import attrs

__all__ = ["Sample", "read"]

_HEADING = re.compile(r"(?m)^== step (\d+), after the prompt (.*)$")


@attrs.frozen
class Sample:
    """A text that a model wrote."""

    step: int
    """Updates made before it was written."""
    prompt: str
    """What it goes on from."""
    text: str
    """What the model wrote, its control characters escaped."""


def read(path: Path) -> tuple[Sample, ...]:
    """Read samples.txt; no samples where there is no such file.

    Only a heading starts in the first column of the file, whatever the model wrote.
    """
    if not path.is_file():
        return ()
    _, *parts = _HEADING.split(path.read_text(encoding="utf-8", errors="backslashreplace"))
    return tuple(
        Sample(int(step), _prompt(prompt), _text(body))
        for step, prompt, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    )


def _prompt(shown: str) -> str:
    """Decode what the heading says; an escape that JSON does not know stays as it is shown."""
    try:
        return str(json.loads(shown))
    except ValueError:
        return shown


def _text(body: str) -> str:
    lines = body.strip("\n").split("\n")
    return "\n".join(line[4:] if line.startswith("    ") else line for line in lines)
