"""One run of the benchmark: what was asked for, and the means by which the sections measure it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from tools.bench import material
from tools.bench.cases import Case
from tools.bench.contestants import Contestant
from tools.bench.pool import ROOT, NotRun, Worker, environment
from tools.bench.setup import Setup

__all__ = ["Ran", "Session"]


@attrs.frozen
class Ran:
    """A program that was run to its end."""

    seconds: float
    """From its start to its end."""
    peak_mb: float
    """Its largest resident size, MB (2**20 bytes)."""
    output: str
    """What it wrote."""


@attrs.frozen
class Session:
    """What was asked for."""

    out: Path
    """Where results, logs and caches go."""
    threads: int
    """CPU threads of every contestant."""
    cases: tuple[Case, ...]
    """Shapes of the steady section."""
    rounds: int
    """Turns that everybody has."""
    quick: bool = False
    """Whether to take the likely best variants and a few rounds only."""
    peers: tuple[str, ...] = ()
    """Peers that take part; empty for all."""
    text: Path | None = None
    """The text of the time to quality."""

    def say(self, message: str) -> None:
        """Tell the person who waits."""
        sys.stderr.write(f"[{time.strftime('%H:%M:%S')}] {message}\n")
        sys.stderr.flush()

    @property
    def caches(self) -> Path:
        """What the sections that do not time the start share, so that each thing is compiled once."""
        return self.out / "caches"

    def takes(self, peer: str) -> bool:
        """Say whether a peer takes part."""
        return not self.peers or peer in self.peers

    @contextlib.contextmanager
    def empty(self) -> Iterator[Path]:
        """Lend an empty folder."""
        with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def worker(self, one: Contestant, case: Case, *, caches: Path | None = None, first: str = "", **more: Any) -> Worker:
        """Start a contestant on a case; see `pool.Worker` and `setup.Setup`."""
        text = self.text.read_text(encoding="utf-8") if self.text else ""
        shapes = "-".join(str(value) for value in (*attrs.astuple(case)[1:-1], zlib.crc32(text.encode())))
        folder = material.make(case, self.out / "material" / shapes, text).folder
        logs = self.out / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        setup = Setup(one, case, str(folder), self.threads, **more)
        return Worker(setup, caches or self.caches, logs / f"{one.name.replace(' ', '-')}.{case.name}.log", first)

    def program(self, args: Sequence[str], caches: Path | None = None, timeout: float = 3600.0) -> Ran:
        """Run a Python program (`["-m", "craft", "--help"]`) to its end and time it.

        Raises
        ------
        NotRun
            If it fails or takes too long; the message is its last line.
        """
        env = environment(caches or self.caches, self.threads)
        with tempfile.TemporaryFile() as output:
            began = time.perf_counter()
            process = subprocess.Popen([sys.executable, *args], stdout=output, stderr=output, env=env, cwd=ROOT)
            code, peak = _await(process, timeout)
            seconds = time.perf_counter() - began
            output.seek(0)
            written = output.read().decode(errors="replace")
        if code:
            lines = written.strip().splitlines()
            raise NotRun(f"python {' '.join(args[:3])} ended with {code}: {lines[-1][:300] if lines else 'it said nothing'}")
        return Ran(seconds, peak, written)


def _await(process: subprocess.Popen[bytes], timeout: float) -> tuple[int, float]:
    """Wait for the end of a process; return its exit code and its own peak of memory in MB, 0 where unknown."""
    if not hasattr(os, "wait4"):
        return process.wait(timeout), 0.0
    deadline = time.monotonic() + timeout
    while True:
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        if done:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            return -9, 0.0
        time.sleep(0.005)
