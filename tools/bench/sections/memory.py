"""Memory of a 100M step: the largest resident size of a process whose programs lie compiled in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from tools.bench.cases import CASES
from tools.bench.contestants import Contestant
from tools.bench.pool import NotRun, Worker
from tools.bench.rounds import begin, estimate, free, turns
from tools.bench.session import Session

__all__ = ["run"]


def run(session: Session, done: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Fill the caches, then measure in fresh processes."""
    if "contestants" in done:
        return
    not_run: dict[str, str] = {}
    those = [one for one in _those(session, not_run) if _compile(session, one, not_run)]
    fit = max(1, int(free() / estimate(CASES["100m"])))
    not_run |= {one.name: f"the machine's memory holds {fit} of them at a time" for one in those[fit:]}
    ms: dict[str, list[float]] = {}
    begun = begin(session, those[:fit], CASES["100m"], not_run)
    workers = {name: worker for name, (worker, _) in begun.items()}
    if workers:
        bursts = dict.fromkeys(workers, CASES["100m"].burst)
        not_run |= turns(
            workers, session.rounds, bursts, lambda name, _, got: ms.setdefault(name, []).append(1e3 * got["seconds"])
        )
    kept = {
        name: {**attrs.asdict(worker.setup.contestant), "ms": ms[name], **_size(worker)} for name, worker in workers.items()
    }
    yield "contestants", kept
    yield "not_run", not_run


def _those(session: Session, not_run: dict[str, str]) -> list[Contestant]:
    modes = ("block", "step", "none")
    ours = [("block", ""), *((mode, "auto") for mode in modes)]
    default = [Contestant("craft", mode, "bf16", memory=memory) for mode, memory in ours if session.takes("craft")]
    others = [Contestant("plain", "eager", "bf16"), Contestant("plain", "compiled", "bf16")]
    mine = sorted(default + _small(modes, not_run), key=lambda one: modes.index(one.variant))  # the bars first
    return mine + [one for one in others if session.takes(one.peer) and not session.quick]


def _small(modes: tuple[str, ...], not_run: dict[str, str]) -> list[Contestant]:
    from tools.bench.peers import craft  # torch is imported here only

    if "small" not in craft.memories():
        not_run["craft, memory=small"] = "this commit of Craft has no --memory small"
        return []
    return [Contestant("craft", mode, "bf16", memory="small") for mode in modes]


def _compile(session: Session, one: Contestant, not_run: dict[str, str]) -> bool:
    """Let a first process pay for the compiler, whose memory is no part of the step's; return whether it could."""
    begun = begin(session, [one], CASES["100m"], not_run)
    for worker, _ in begun.values():
        worker.end()
    return bool(begun)


def _size(worker: Worker) -> dict[str, Any]:
    try:
        return worker.ask("memory", timeout=60)
    except NotRun:
        return {}
    finally:
        worker.end()
