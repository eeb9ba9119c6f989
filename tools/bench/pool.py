"""The parent's side: workers that are started, asked in turn, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tools.bench.contestants import KEPT
from tools.bench.setup import Setup

__all__ = ["ROOT", "NotRun", "Worker", "environment"]

ROOT = Path(__file__).resolve().parent.parent.parent
"""The folder of the repository."""


class NotRun(Exception):  # noqa: N818 - a fact that is reported, not a fault of the program
    """A contestant cannot run here; the message says why."""


def environment(caches: Path, threads: int, *, kept: bool = False, device: str = "cpu") -> dict[str, str]:
    """Make the environment of a process: the threads, caches of its own, no dashboard, no download.

    Parameters
    ----------
    caches
        Where compiled programs are kept; an empty folder makes a cold start.
    threads
        CPU threads.
    kept
        Whether glibc is told to keep freed memory.
    device
        cpu hides the GPUs.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    own |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    own |= {"XDG_CACHE_HOME": str(caches), "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor")}
    own |= {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    own |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"} if device == "cpu" else {}
    return own | ({"GLIBC_TUNABLES": KEPT} if kept else {})


class Worker:
    """A contestant's process.

    Parameters
    ----------
    setup
        What it is told.
    caches
        Where its compiled programs are kept.
    log
        File that its standard error is appended to.
    first
        Commands that lie ready before it starts, so that it need not wait for them.
    """

    def __init__(self, setup: Setup, caches: Path, log: Path, first: str = "") -> None:
        self.setup, self.log = setup, log
        self.name = setup.contestant.name
        env = environment(caches, setup.threads, kept=setup.contestant.kept, device=setup.device)
        command = [sys.executable, "-m", "tools.bench.worker", setup.dump()]
        self.began = time.monotonic()
        with log.open("a", encoding="utf-8") as errors:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env=env, cwd=ROOT, text=True)
        self._answers: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._idle, self._rested = [0.0, 0.0], (self.cpu(), time.monotonic())
        if first:
            self._write(first)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _write(self, command: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # gone, or ended: its last answer says why
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()

    def ask(self, command: str, timeout: float = 1800.0) -> dict[str, Any]:
        """Give a command and wait for its answer.

        Raises
        ------
        NotRun
            If the worker says that it cannot, dies, or takes longer than `timeout` seconds.
        """
        cpu, now = self.cpu(), time.monotonic()
        self._idle[0] += cpu - self._rested[0]
        self._idle[1] += now - self._rested[1]
        self._write(command)
        return self.hear(timeout)

    def hear(self, timeout: float = 1800.0) -> dict[str, Any]:
        """Wait for an answer to what was asked before; see `ask`."""
        try:
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            self.end()
            raise NotRun(f"no answer in {timeout:.0f} s") from None
        if not line:
            raise NotRun(f"the process ended by itself ({self._process.wait()}): {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        problem = answer.get("missing") or answer.get("error")
        if problem:
            self.end()
            raise NotRun(problem)
        self._rested = (self.cpu(), time.monotonic())
        return answer

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"

    def cpu(self) -> float:
        """Return the seconds of CPU time that the process has used."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def idle(self) -> float:
        """CPUs that it kept busy while it waited for its turn: threads that spin would disturb the others."""
        return self._idle[0] / self._idle[1] if self._idle[1] > 1.0 else 0.0

    def end(self) -> None:
        """Let the process quit, or kill it; once is enough, twice does no harm."""
        self._write("quit")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
