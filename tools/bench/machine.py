"""What the numbers were measured on: the machine, the versions, the commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from tools.bench.pool import ROOT
from tools.bench.rounds import free

__all__ = ["describe"]

_LIBRARIES = ("torch", "numpy", "optree", "transformers", "accelerate", "lightning", "jax", "jaxlib", "flax", "optax")


def describe(threads: int) -> dict[str, str]:
    """Return what readers want to know, as words by name."""
    facts = {
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, {free() / 1024:.1f} GB of memory free",
        "threads": str(threads),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "compiler": _first_line(["c++", "--version"]) or "none",
        "gpu": _first_line(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]) or "none",
        "commit": _commit(),
    }
    return facts | {library: _version(library) for library in _LIBRARIES}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    commit = _first_line(["git", "rev-parse", "HEAD"]) or "unknown"
    changed = _first_line(["git", "status", "--porcelain", "--untracked-files=no"])
    return f"{commit} with uncommitted changes" if changed else commit


def _first_line(command: list[str]) -> str:
    try:
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ran.stdout.strip().partition("\n")[0]
