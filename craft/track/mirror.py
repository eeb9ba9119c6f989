"""Mirror a run to Weights & Biases from a process of its own, so that nothing W&B does can stop or slow the run.

This process only puts JSON lines into a bounded queue; a thread feeds them to `python -m craft.track.wandb`, which alone
imports wandb. What does not fit is dropped and counted: the record is metrics.jsonl, and `craft track push` sends that.
"""

from __future__ import annotations

import contextlib
import json
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
from craft.track import lines
from craft.track.artifact import newest
from craft.track.text import oneline
from craft.track.tracker import Info, Report

__all__ = ["Wandb", "identity"]

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"

PATIENCE = 2.0
"""Seconds that `finish` waits before it says what it waits for."""

SLOWEST = 250e3
"""Bytes a second of the slowest line that an upload is waited for on."""


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
    artifacts
        Whether the newest checkpoint is uploaded at the end, which `finish` waits for as long as a slow line takes.
    wait
        Seconds that `finish` waits for W&B, at most, without an upload.
    capacity
        Lines that may wait to be taken; more are dropped.
    """

    def __init__(
        self,
        mode: Literal["online", "offline"] = "online",
        say: Callable[[str], None] = lambda text: None,
        *,
        artifacts: bool = False,
        wait: float = 10.0,
        capacity: int = 4096,
    ) -> None:
        self._mode, self._say, self._artifacts, self._wait = mode, say, artifacts, wait
        self._lines: queue.Queue[str | None] = queue.Queue(capacity)
        self._notes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._heard = threading.Event()
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
        store.write_json(folder / "run.json", {"project": info.project, "group": info.group})
        self._put(lines.start(info, self._mode, identity(info.directory)))

    def report(self, report: Report) -> None:
        """Queue the numbers of one step."""
        self._tell()
        self._put(lines.report(report))

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Queue a sample."""
        self._put(lines.sample(step, prompt, text))

    def message(self, text: str) -> None:
        """Do nothing: messages are for the terminal and log.txt, and may name what is on this machine."""

    def finish(self, status: str, summary: dict[str, float]) -> None:
        """Wait a bounded time for the process, then end it and all that it started."""
        if self._child is None:
            return
        began = time.monotonic()
        try:
            wait = self._wait + self._uploading()
            deadline = began + wait
            if self._artifacts:
                self._put({"kind": "checkpoint"}, deadline)
            self._put({"kind": "finish", "status": status, "summary": summary, "wait": wait}, deadline)
            self._put(None, deadline)
            late = not (self._ends(min(deadline, time.monotonic() + PATIENCE)) or self._ends_after_notice(deadline))
        finally:
            _end(self._child)
        self._put(None, time.monotonic() + 1)  # the feeder waits for it, where the queue was full until now
        self._listener.join(1.0)
        self._tell()
        self._conclude(late, wait)

    def _uploading(self) -> float:
        """Return the seconds that the upload may take; none where W&B has not opened the run until now."""
        found = newest(self._directory) if self._artifacts and self._opened() else None
        return found.size / SLOWEST if found else 0.0

    def _opened(self) -> bool:
        if not self._heard.wait(min(PATIENCE, self._wait)):
            self._say(f"W&B has not opened the run yet; waiting for it {self._wait:.0f} s at most")
        return self._heard.wait(max(0.0, self._wait - PATIENCE))

    def _ends(self, deadline: float) -> bool:
        assert self._child is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(max(0.0, deadline - time.monotonic()))
        return self._child.poll() is not None

    def _ends_after_notice(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        if left > 0.5:
            what = "uploads the checkpoint" if self._artifacts else "takes its time"
            self._say(f"W&B {what}; waiting for it {left:.0f} s at most")
        return self._ends(deadline)

    def _conclude(self, late: bool, wait: float) -> None:
        again = f"send it with `craft track push {self._directory}{' --artifacts' * self._artifacts}`"
        if self._dropped:
            self._say(
                f"W&B: {self._dropped} lines did not fit in the queue and were dropped; the local record is complete: {again}"
            )
        if late:
            self._say(f"W&B did not finish within {wait:.0f} s; the local record is complete: {again}")
        elif self._child and self._child.returncode:
            self._say(
                f"W&B ended early (see {self._directory / 'wandb' / 'mirror.log'}); the local record is complete: {again}"
            )

    def _put(self, line: lines.Line | None, deadline: float = 0.0) -> None:
        text = None if line is None else json.dumps(line) + "\n"
        try:
            if deadline:
                self._lines.put(text, timeout=max(0.0, deadline - time.monotonic()))
            else:
                self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += line is not None

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
                self._heard.set()
        self._heard.set()

    def _tell(self) -> None:
        while not self._notes.empty():
            self._say(f"W&B: {self._notes.get()}")


def identity(directory: Path) -> str:
    """Return the id of a run in W&B, which its directory keeps; make one where it has none."""
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
