"""Whether `--compile auto` chooses well: total wall time of real runs, empty caches, against the best single mode.

A first run of each mode tells what its start costs and what an update takes. From these come the lengths of which the best
mode needs 30 seconds, five minutes and an hour. Runs of 30 seconds are made in every mode; of five minutes in `auto` and in
the mode that is predicted best; an hour is predicted, for `auto` from the mode that it announces.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.bench.pool import ROOT, NotRun, environment
from tools.bench.session import Session

__all__ = ["LENGTHS", "fit", "length", "predict", "run"]

MODES = ("none", "block", "step")
LENGTHS = {"30 s": (30.0, "all"), "5 min": (300.0, "two"), "1 h": (3600.0, "none")}
"""Seconds that the best mode needs, and which runs are made: all, `auto` and the best, none."""
_FIRST = 60
"""Updates of the run that tells the rates."""


def run(session: Session, done: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Measure the rates, then the lengths."""
    rates = done.get("rates") or {mode: _rate(session, mode) for mode in MODES}
    yield "rates", rates
    known = {mode: rate for mode, rate in rates.items() if "not_run" not in rate}
    if not known:
        return
    for name, (seconds, made) in LENGTHS.items():
        if name not in done:
            session.say(f"default: {name}")
            made = "none" if session.quick and made == "two" else made
            yield name, _length(session, seconds, made, known)


def fit(wall: float, updates: int, timings: list[dict[str, float]]) -> dict[str, float]:
    """Split a run's wall time into a start and seconds an update, from its timings.

    Parameters
    ----------
    wall
        Seconds of the whole process.
    updates
        How many it made.
    timings
        Rows with `step` and `seconds`; the first update is part of the start.
    """
    half = [row for row in timings if row["step"] > updates // 3]
    each = (half[-1]["seconds"] - half[0]["seconds"]) / (half[-1]["step"] - half[0]["step"])
    return {"start": wall - each * updates, "update": each}


def predict(rate: dict[str, float], updates: int) -> float:
    """Return the seconds of a run."""
    return rate["start"] + rate["update"] * updates


def length(rates: dict[str, dict[str, float]], seconds: float) -> int:
    """Return how many updates the best mode makes in so many seconds, at least one."""
    return max(1, *(int((seconds - rate["start"]) / rate["update"]) for rate in rates.values()))


def _args(session: Session, mode: str, updates: int, out: Path) -> list[str]:
    source = str(session.text) if session.text else "stdlib"
    args = ["-m", "experiments.char_1m", "--data.source", source, "--steps", str(updates), "--compile", mode]
    return [*args, "--threads", str(session.threads), "--out", str(out), "--track.wandb", "off"]


def _once(session: Session, mode: str, updates: int, *more: str) -> tuple[float, list[dict[str, float]]]:
    with session.empty() as folder:
        seconds = session.program([*_args(session, mode, updates, folder / "run"), *more], caches=folder / "caches").seconds
        lines = (folder / "run" / "timings.jsonl").read_text(encoding="utf-8").splitlines()
    session.say(f"default: {mode}, {updates} updates: {seconds:.1f} s")
    return seconds, [json.loads(line) for line in lines]


def _rate(session: Session, mode: str) -> dict[str, Any]:
    quiet = ("--evaluate.every", "1000000", "--checkpoint.every", "1000000", "--track.every", "5")
    try:
        wall, timings = _once(session, mode, _FIRST, *quiet)
    except NotRun as reason:
        return {"not_run": str(reason)}
    return fit(wall, _FIRST, timings[:-1])  # the last row comes after the evaluation at the end


def _length(session: Session, seconds: float, made: str, rates: dict[str, dict[str, float]]) -> dict[str, Any]:
    updates = length(rates, seconds)
    predicted = {mode: predict(rate, updates) for mode, rate in rates.items()}
    best = min(predicted, key=lambda mode: predicted[mode])
    result: dict[str, Any] = {"updates": updates, "predicted": predicted, "best": best}
    if made == "none":
        chosen = _announced(session, updates)
        return {**result, "auto": chosen, "measured": {}, "auto_over_best": predicted[chosen] / predicted[best]}
    modes = ["auto", *rates] if made == "all" else ["auto", best]
    measured = {mode: _once(session, mode, updates)[0] for mode in modes}
    least = min(value for mode, value in measured.items() if mode != "auto")
    return {**result, "measured": measured, "auto_over_best": measured["auto"] / least}


def _announced(session: Session, updates: int) -> str:
    """Start a long run, read which mode it says it takes, and end it."""
    with session.empty() as folder:
        command = [sys.executable, *_args(session, "auto", updates, folder / "run")]
        env = environment(folder / "caches", session.threads)
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=env, cwd=ROOT)
        try:
            deadline = time.monotonic() + 60.0
            while time.monotonic() < deadline and process.poll() is None:
                log = folder / "run" / "log.txt"
                found = re.search(r"compile (none|block|step)\b", log.read_text(encoding="utf-8")) if log.exists() else None
                if found:
                    return found[1]
                time.sleep(0.2)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    raise NotRun("--compile auto did not say which mode it takes")
