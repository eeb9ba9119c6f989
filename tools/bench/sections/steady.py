"""Steady speed: everybody in turns on the same shapes, with the machine's own products in the same rounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from tools.bench.cases import Case
from tools.bench.contestants import Contestant, field, products
from tools.bench.pool import NotRun, Worker
from tools.bench.rounds import begin, estimate, free, turns
from tools.bench.session import Session

__all__ = ["ANCHORS", "measure", "run"]

ANCHORS = ("craft step bf16", "craft step fp32", "craft step bf16 default")
"""What the others are compared with: alive in every round of every group."""


def run(session: Session, done: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Measure each case that is not done."""
    for case in session.cases:
        if case.name not in done:
            yield case.name, measure(session, case, field(session.peers, quick=session.quick))


def measure(session: Session, case: Case, those: list[Contestant], together: int = 0, **more: Any) -> dict[str, Any]:
    """Time contestants on a case.

    Not all fit into the memory together: they come in groups, and in each group the anchors and the products take part.

    Parameters
    ----------
    session, case
        What is run.
    those
        Who.
    together
        How many besides the anchors are alive at a time; 0: as many as the memory holds.
    **more
        Fields of `setup.Setup`.

    Returns
    -------
    The case's numbers, and by name for each contestant one entry a round: its own milliseconds an update, those of the
    anchors (`beside`), and the rate of products in its precision (`peak`, GFLOP/s).
    """
    not_run: dict[str, str] = {}
    kept: dict[str, dict[str, Any]] = {}
    anchors = [one for one in those if one.name in ANCHORS]
    steadies = begin(session, products() + anchors, case, not_run, **more)
    others = [one for one in those if one.name not in ANCHORS]
    size = together or max(1, int(0.8 * free() / estimate(case)))
    groups = [others[at : at + size] for at in range(0, len(others), size)] or [[]]
    for group in groups:
        guests = begin(session, group, case, not_run, **more)
        session.say(f"{case.name}: {session.rounds} rounds of {', '.join([*guests, *steadies])}")
        _rounds(session, case, {**steadies, **guests}, kept, not_run)
        for name, (worker, _) in guests.items():
            _close(worker, kept.get(name))
    for name, (worker, _) in steadies.items():
        _close(worker, kept.get(name))
    facts = {"tokens": case.tokens, "flops": case.flops, "parameters": case.parameters, "multiplied": case.multiplied}
    return {**facts, "contestants": kept, "not_run": not_run}


def _rounds(
    session: Session, case: Case, begun: dict[str, tuple[Worker, dict[str, Any]]], kept: dict[str, Any], not_run: dict[str, str]
) -> None:
    ms: dict[str, dict[int, float]] = {name: {} for name in begun}
    best: dict[str, float] = {}
    rates: dict[str, dict[int, float]] = {"bf16": {}, "fp32": {}}

    def keep(name: str, number: int, answer: dict[str, Any]) -> None:
        if name.startswith("product"):
            rates[workers[name].setup.contestant.precision][number] = answer["loss"]
            return
        ms[name][number] = 1e3 * answer["seconds"] / len(answer["each"])
        best[name] = min([best.get(name, float("inf")), *(1e3 * each for each in answer["each"])])

    workers = {name: worker for name, (worker, _) in begun.items()}
    bursts = {name: 1 if name.startswith("product") else case.burst for name in begun}
    not_run |= turns(workers, session.rounds, bursts, keep)
    for name, (worker, facts) in begun.items():
        if name.startswith("product") or not ms[name]:
            continue
        own = ms[name]
        entry = kept.setdefault(
            name, {**attrs.asdict(worker.setup.contestant), **facts, "ms": [], "peak": [], "beside": {}, "best_ms": best[name]}
        )
        entry["best_ms"] = min(entry["best_ms"], best[name])
        entry["idle"] = max(entry.get("idle", 0.0), worker.idle)
        peak = rates[worker.setup.contestant.precision]
        entry["ms"] += own.values()
        entry["peak"] += [peak.get(number) for number in own]
        for anchor in ANCHORS:
            if anchor in ms:
                entry["beside"].setdefault(anchor, []).extend(ms[anchor].get(number) for number in own)


def _close(worker: Worker, entry: dict[str, Any] | None) -> None:
    try:
        if entry is not None:
            entry |= worker.ask("memory", timeout=60)
    except NotRun:
        pass  # it fell out during the rounds, which is told already
    worker.end()
