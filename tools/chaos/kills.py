"""Runs and preparations that are killed: before each operation of the disk, and at random moments."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from craft.store import disk
from tools.chaos.runs import RUN, Subject, child, reference

__all__ = ["Kills", "at_operations", "at_random", "operations"]


@attrs.define
class Kills:
    """What came of killing."""

    points: int
    """Where one could be killed; 0: anywhere."""
    killed: int = 0
    """How often one was."""
    runs: int = 0
    """How many were gone on with to their end."""
    wrong: list[str] = attrs.field(factory=list)
    """Those that did not end like the one that nobody broke."""


def operations(folder: Path, subject: Subject = RUN) -> int:
    """Count the operations of the disk in a whole run; its text is prepared already, where it needs one."""
    reference(folder, subject)
    reader, writer = os.pipe()
    shutil.rmtree(folder / "counted", ignore_errors=True)

    def count() -> None:
        total = 0

        def hook(name: str, path: Path, detail: Any) -> None:
            nonlocal total
            total += 1

        disk.HOOK = hook
        subject.go(folder, folder / "counted")
        os.write(writer, str(total).encode())

    process = child(count)
    os.close(writer)
    with os.fdopen(reader) as stream:
        total = int(stream.read() or 0)
    os.waitpid(process, 0)
    return total


def at_operations(
    folder: Path,
    points: Iterable[int] | None = None,
    *,
    subject: Subject = RUN,
    tell: Callable[[str], None] = lambda text: None,
) -> Kills:
    """Kill a run before the n-th operation of the disk, for every n or some, and go on with each to its end."""
    expected, total = reference(folder, subject), operations(folder, subject)
    found = Kills(total)
    for number in range(1, total + 1) if points is None else points:
        out = folder / f"killed-{number}"
        code = _wait(child(partial(_killed, subject, folder, out, number)))
        if code == -signal.SIGKILL:
            found.killed += 1
        elif code:
            found.wrong.append(f"operation {number}: ended with {code}")
        again = _wait(child(partial(subject.go, folder, out)))
        _finish(found, f"operation {number}", again, out, subject, expected)
        tell(f"{found.runs} killed at one of {total} operations, {len(found.wrong)} wrong")
    return found


def _killed(subject: Subject, folder: Path, out: Path, number: int) -> None:
    left = number

    def hook(name: str, path: Path, detail: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    disk.HOOK = hook
    subject.go(folder, out)


def at_random(
    folder: Path, kills: int, *, subject: Subject = RUN, seed: int = 0, tell: Callable[[str], None] = lambda text: None
) -> Kills:
    """Kill runs at random moments and go on with them, until so many kills are made and the last run has ended."""
    expected, draw = reference(folder, subject), random.Random(seed)
    found, number = Kills(0), 0
    while found.killed < kills:
        number += 1
        out, before = folder / f"soak-{number}", found.killed
        while (code := _some_time(subject, folder, out, draw)) == -signal.SIGKILL:
            found.killed += 1
        _finish(found, f"run {number}, killed {found.killed - before} times", code, out, subject, expected)
        tell(f"{found.killed} kills of {kills}, {found.runs} ended, {len(found.wrong)} wrong")
    return found


def _some_time(subject: Subject, folder: Path, out: Path, draw: random.Random) -> int:
    """Let one go on for a random time, then kill it; return its exit code."""
    process = child(lambda: subject.go(folder, out))
    end = time.monotonic() + draw.uniform(0.02, subject.pause)
    while time.monotonic() < end:
        ended_, status = os.waitpid(process, os.WNOHANG)
        if ended_:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    return _wait(process)


def _finish(found: Kills, name: str, code: int, out: Path, subject: Subject, expected: dict[str, str]) -> None:
    found.runs += 1
    if code:
        found.wrong.append(f"{name}: going on ended with {code}")
    elif (there := subject.ended(out)) != expected:
        differing = sorted(path for path in {**there, **expected} if there.get(path) != expected.get(path))
        found.wrong.append(f"{name}: {', '.join(differing)} differ")
    else:
        shutil.rmtree(out)  # what is wrong stays, to be looked at


def _wait(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
