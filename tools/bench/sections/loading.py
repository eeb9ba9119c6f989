"""What loading costs: a batch of the 1M model from memory-mapped shards, beside its step in the same turns."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from typing import Any

from tools.bench.cases import CASES
from tools.bench.contestants import Contestant
from tools.bench.rounds import begin, turns
from tools.bench.session import Session

__all__ = ["run"]


def run(session: Session, done: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Time batches and steps by turns, for both batch sizes of 1M."""
    source = str(session.text) if session.text else "stdlib"
    for name in ("1m", "1m-b64"):
        if name not in done:
            session.say(f"loading: {name}")
            yield name, _measure(session, name, source)


def _measure(session: Session, name: str, source: str) -> dict[str, Any]:
    case, not_run = CASES[name], dict[str, str]()
    step: list[float] = []
    batch: list[list[float]] = []

    def keep(who: str, number: int, answer: dict[str, Any]) -> None:
        step.append(1e3 * statistics.median(answer["each"]))
        output = session.program(["-m", "tools.bench.batches", source, str(case.batch)]).output
        batch.append(json.loads(output.strip().splitlines()[-1])[str(case.batch)])

    begun = begin(session, [Contestant("craft", "step", "bf16", architecture="default")], case, not_run)
    workers = {one: worker for one, (worker, _) in begun.items()}
    if workers:
        not_run |= turns(workers, min(session.rounds, 5), dict.fromkeys(workers, case.burst), keep)
    for worker in workers.values():
        worker.end()
    return {
        "step_ms": step,
        "batch_ms": [median for median, _ in batch],
        "mean_ms": [mean for _, mean in batch],
        "not_run": not_run,
    }
