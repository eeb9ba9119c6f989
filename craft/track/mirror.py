"""Mirror a run to Weights & Biases from a process of its own, so that nothing W&B does can stop or slow the run.

This process only puts JSON lines into a bounded queue; a thread feeds them to `python -m craft.track.wandb`, which alone
imports wandb. What does not fit is dropped and counted: the record is metrics.jsonl, and it can be sent again from there.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from craft import store
from craft.track.text import oneline
from craft.track.tracker import Info, Report

__all__ = ["Wandb"]

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"

PATIENCE = 2.0
"""Seconds that `finish` waits before it says what it waits for."""


class Wandb:
    """A run in Weights & Biases.

    The run's id lies in `wandb-id.txt`: a resumed run, also one that was moved or copied, goes on in the same W&B run.
    A name derived from the directory would not survive a move, and W&B never lets the id of a deleted run be used again.

    Parameters
    ----------
    mode
        `online` sends while the run goes on; `offline` writes what `wandb sync` sends later.
    say
        Takes a line for people; called only from within the methods of this object.
    wait
        Seconds that `finish` waits for W&B, at most.
    capacity
        Lines that may wait to be taken; more are dropped.
    """

    def __init__(
        self,
        mode: Literal["online", "offline"] = "online",
        say: Callable[[str], None] = lambda text: None,
        *,
        wait: float = 10.0,
        capacity: int = 4096,
    ) -> None:
        self._mode, self._say, self._wait = mode, say, wait
        self._lines: queue.Queue[str | None] = queue.Queue(capacity)
        self._notes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._dropped = 0
        self._child: subprocess.Popen[str] | None = None

    def start(self, info: Info) -> None:
        """Start the process; this takes milliseconds, whatever the network does."""
        folder = info.directory / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        self._directory = info.directory
        with (folder / "mirror.log").open("a") as log:
            self._child = _spawn(log)
        threading.Thread(target=self._feed, args=(self._child,), daemon=True, name="craft-wandb-feed").start()
        self._listener = threading.Thread(target=self._listen, args=(self._child,), daemon=True, name="craft-wandb-listen")
        self._listener.start()
        names = {"name": info.name, "project": info.project, "group": info.group, "id": _identity(info.directory)}
        self._about: dict[str, Any] = {**names, "config": info.config}
        store.write_json(folder / "run.json", self._about)
        self._put("start", mode=self._mode, directory=str(info.directory.resolve()), **self._about)

    def report(self, report: Report) -> None:
        """Queue the numbers of one step."""
        self._tell()
        values = {**report.metrics, **report.timings, "step": report.step, "tokens": report.tokens}
        self._put("report", step=report.step, values=values)

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Queue a sample."""
        self._put("sample", step=step, prompt=prompt, text=text)

    def message(self, text: str) -> None:
        """Do nothing: messages are for the terminal and log.txt, and may name what is on this machine."""

    def finish(self, status: str, summary: dict[str, float]) -> None:
        """Wait a bounded time for the process, then end it and all that it started."""
        if self._child is None:
            return
        deadline = time.monotonic() + self._wait
        finite = {name: value for name, value in summary.items() if math.isfinite(value)}
        try:
            store.write_json(self._directory / "wandb" / "run.json", {**self._about, "status": status, "summary": finite})
            self._put("finish", deadline, status=status, summary=summary, wait=self._wait)
            self._put(None, deadline)
            late = not (self._ends(min(deadline, time.monotonic() + PATIENCE)) or self._ends_after_notice(deadline))
        finally:
            _end(self._child)
        self._put(None, time.monotonic() + 1)  # the feeder waits for it, where the queue was full until now
        self._listener.join(1.0)
        self._tell()
        self._conclude(late)

    def _ends(self, deadline: float) -> bool:
        assert self._child is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(max(0.0, deadline - time.monotonic()))
        return self._child.poll() is not None

    def _ends_after_notice(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        if left > 0.5:
            self._say(f"W&B takes its time; waiting for it {left:.0f} s at most")
        return self._ends(deadline)

    def _conclude(self, late: bool) -> None:
        again = f"send it with `python -m craft.track.wandb {self._directory}`"
        if self._dropped:
            self._say(
                f"W&B: {self._dropped} lines did not fit in the queue and were dropped; the local record is complete: {again}"
            )
        if late:
            self._say(f"W&B did not finish within {self._wait:g} s; the local record is complete: {again}")
        elif self._child and self._child.returncode:
            self._say(
                f"W&B ended early (see {self._directory / 'wandb' / 'mirror.log'}); the local record is complete: {again}"
            )

    def _put(self, kind: str | None, deadline: float = 0.0, **values: Any) -> None:
        line = None if kind is None else json.dumps({"kind": kind, **values}) + "\n"
        try:
            if deadline:
                self._lines.put(line, timeout=max(0.0, deadline - time.monotonic()))
            else:
                self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += kind is not None

    def _feed(self, child: subprocess.Popen[str]) -> None:
        assert child.stdin is not None
        with contextlib.suppress(OSError):  # the process is gone; its listener knows why
            while (line := self._lines.get()) is not None:
                child.stdin.write(line)
                child.stdin.flush()
        with contextlib.suppress(OSError):
            child.stdin.close()
        while line is not None:  # nobody reads any more: keep the queue from filling up
            line = self._lines.get()

    def _listen(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                self._notes.put(oneline(line.rstrip("\n")))

    def _tell(self) -> None:
        while not self._notes.empty():
            self._say(f"W&B: {self._notes.get()}")


def _identity(directory: Path) -> str:
    path = directory / "wandb-id.txt"
    if not path.exists():
        store.write(path, "".join(secrets.choice(ALPHABET) for _ in range(8)) + "\n")
    return path.read_text(encoding="utf-8").strip()


def _spawn(log: Any) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    house = str(Path(__file__).resolve().parents[2])
    if Path(house).name not in ("site-packages", "dist-packages"):  # there it is found anyway
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (house, os.environ.get("PYTHONPATH"))))
    environment["PYTHONWARNINGS"] = "ignore"
    return subprocess.Popen(
        [sys.executable, "-m", "craft.track.wandb"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        encoding="utf-8",
        errors="backslashreplace",
        env=environment,
        start_new_session=True,  # a group of its own: Ctrl-C does not reach it, and it can be ended with all it started
    )


def _end(child: subprocess.Popen[str]) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    elif child.poll() is None:
        child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(1.0)
