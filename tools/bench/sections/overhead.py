"""The fixed cost of a step: a model with as many leaves and operations as 1M, whose tensors hold next to nothing.

What such a step takes is what any step of that depth takes beside its arithmetic: Python, guards, the flattening of the
state, the calls of the kernels. It is an upper bound, since small kernels are not free either.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from tools.bench.cases import Case
from tools.bench.contestants import field
from tools.bench.rounds import begin, turns
from tools.bench.session import Session

__all__ = ["HOLLOW", "run"]

HOLLOW = Case("hollow", depth=4, width=8, heads=4, context=4, batch=1, vocabulary=4, burst=100)
"""As deep as 1M, and nearly empty."""


def run(session: Session, done: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Time the hollow model."""
    if "ms" in done:
        return
    not_run: dict[str, str] = {}
    ms: dict[str, list[float]] = {}

    def keep(name: str, number: int, answer: dict[str, Any]) -> None:
        ms.setdefault(name, []).append(1e3 * statistics.median(answer["each"]))

    those = [one for one in field(session.peers, quick=session.quick) if not one.kept]
    begun = begin(session, those, HOLLOW, not_run)
    workers = {name: worker for name, (worker, _) in begun.items()}
    if workers:
        not_run |= turns(workers, session.rounds, dict.fromkeys(workers, HOLLOW.burst), keep)
    for worker in workers.values():
        worker.end()
    yield "ms", ms
    yield "not_run", not_run
