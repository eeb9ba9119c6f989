"""The start: from the birth of a process to the end of its first update, with empty caches and with its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from tools.bench.cases import CASES
from tools.bench.contestants import Contestant, field
from tools.bench.pool import NotRun
from tools.bench.session import Session

__all__ = ["run"]


def run(session: Session, done: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Start everybody twice a round, first with an empty cache, beside a process that imports torch and ends."""
    for number in range(1 if session.quick else min(session.rounds, 3)):
        key = f"round {number}"
        if key not in done:
            yield key, _round(session)


def _entries(session: Session) -> list[tuple[Contestant, int]]:
    depths = (4,) if session.quick else (4, 8, 12)
    craft = [(Contestant("craft", "block", "bf16"), depth) for depth in depths]
    craft += [(Contestant("craft", mode, "bf16"), 4) for mode in ("step", "none")]
    craft += [(Contestant("craft", mode, "bf16", architecture="default"), 4) for mode in ("step", "block", "none")]
    craft = craft if session.takes("craft") else []
    if session.quick:
        craft = [entry for entry in craft if entry[0].architecture == "gpt2"]
    others = [one for one in field(session.peers, quick=session.quick) if one.peer != "craft"]
    return craft + [(one, 4) for one in others if one.precision == "bf16" and not one.kept]


def _round(session: Session) -> dict[str, Any]:
    times: dict[str, Any] = {"import torch": {"warm": session.program(["-c", "import torch"]).seconds}}
    for one, depth in _entries(session):
        name = f"{one.name}, {depth} layers"
        try:
            with session.empty() as caches:
                times[name] = {kind: _first_update(session, one, depth, caches) for kind in ("cold", "warm")}
            session.say(f"start: {name}: {times[name]['cold']:.1f} s cold, {times[name]['warm']:.1f} s warm")
        except NotRun as reason:
            times[name] = {"not_run": str(reason)}
            session.say(f"start: {name} is not run: {reason}")
    times["import torch again"] = {"warm": session.program(["-c", "import torch"]).seconds}
    return times


def _first_update(session: Session, one: Contestant, depth: int, caches: Path) -> float:
    """Return the seconds until the parent hears that the first update is made."""
    case = attrs.evolve(CASES["1m"], name=f"1m-{depth}", depth=depth)
    worker = session.worker(one, case, caches=caches, first="steps 1")
    try:
        worker.hear()
        worker.hear()
        return time.monotonic() - worker.began
    finally:
        worker.end()
