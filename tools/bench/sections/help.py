"""How long people wait for help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tools.bench.session import Session

__all__ = ["run"]

_PROGRAMS = {
    "python": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "craft --help": ["-m", "craft", "--help"],
    "experiment --help": ["-m", "experiments.char_1m", "--help"],
    "experiment --help-all": ["-m", "experiments.char_1m", "--help-all"],
}


def run(session: Session, done: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Run each program once a round, after one round that warms the disk."""
    if "seconds" in done:
        return
    seconds: dict[str, list[float]] = {name: [] for name in _PROGRAMS}
    for number in range(1 + max(3, session.rounds)):
        for name, args in _PROGRAMS.items():
            taken = session.program(args).seconds
            seconds[name] += [taken] if number else []
    yield "seconds", seconds
