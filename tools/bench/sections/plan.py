"""Whether `craft plan` tells the truth: what it predicts for a configuration, beside what a run of it takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.bench.pool import NotRun
from tools.bench.sections.default import fit
from tools.bench.session import Session

__all__ = ["CONFIGURATIONS", "NAMES", "prediction", "run"]

CONFIGURATIONS = (
    "--batch 12 --compile none",
    "--batch 12 --compile block",
    "--batch 12 --compile step",
    "--batch 12 --compile step --precision fp32",
    "--batch 48 --compile block",
    "--batch 12 --context 64 --compile block",
    "--batch 12 --model.depth 8 --compile block",
    "--batch 8 --model.width 384 --model.depth 6 --compile block",
    "--batch 4 --model.width 512 --model.depth 8 --compile none",
)
"""Flags of experiments/char_1m.py."""
_UPDATES = 24
NAMES = ("memory_mb", "first_start_memory_mb", "seconds_per_step")
"""What is predicted: the peak of a start with and without programs that are there, and the time."""


def run(session: Session, done: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Plan and run each configuration."""
    if " plan" not in session.program(["-m", "craft", "--help"]).output:
        yield "not_run", "this commit of Craft has no `craft plan`"
        return
    for flags in CONFIGURATIONS[:2] if session.quick else CONFIGURATIONS:
        if flags not in done:
            session.say(f"plan: {flags}")
            try:
                yield flags, _compare(session, flags.split())
            except NotRun as reason:
                yield flags, {"not_run": str(reason)}


def _compare(session: Session, flags: list[str]) -> dict[str, Any]:
    """Run it twice: the first start compiles, the second loads what the first one built."""
    source = str(session.text) if session.text else "stdlib"
    flags = [*flags, "--data.source", source, "--steps", str(_UPDATES), "--threads", str(session.threads)]
    with session.empty() as caches:
        planned = prediction(session.program(["-m", "craft", "plan", "char_1m", *flags, "--json"], caches).output)
        first, then = (_run(session, flags, caches) for _ in range(2))
    took = {"first_start_memory_mb": first["memory_mb"], **then}
    return {"predicted": planned, "measured": took}


def _run(session: Session, flags: list[str], caches: Path) -> dict[str, float]:
    quiet = ["--evaluate.every", "1000000", "--checkpoint.every", "1000000", "--track.every", "2", "--track.wandb", "off"]
    with session.empty() as folder:
        ran = session.program(["-m", "experiments.char_1m", *flags, *quiet, "--out", str(folder / "run")], caches)
        rows = [json.loads(line) for line in (folder / "run" / "timings.jsonl").read_text(encoding="utf-8").splitlines()]
    return {"memory_mb": rows[-2]["memory_mb"], "seconds_per_step": fit(ran.seconds, _UPDATES, rows[:-1])["update"]}


def prediction(output: str) -> dict[str, float]:
    """Read what `craft plan --json` says: its last line, an object with the names of `NAMES`.

    Raises
    ------
    NotRun
        If it does not say these.
    """
    lines = output.strip().splitlines()
    try:
        said = json.loads(lines[-1])
        return {name: float(said[name]) for name in NAMES}
    except (IndexError, ValueError, KeyError, TypeError) as error:
        raise NotRun("`craft plan --json` gave no object with memory_mb and its like") from error
