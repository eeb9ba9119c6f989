"""On a GPU: GPT-2 124M beside the plain loop, and nanoGPT's character recipe to its validation loss."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import attrs

from tools.bench.cases import GPU_CASES
from tools.bench.contestants import Contestant
from tools.bench.pool import NotRun
from tools.bench.sections import quality, steady
from tools.bench.session import Session

__all__ = ["run"]

_RECIPE = {"updates": 5000, "every": 250, "dropout": 0.2, "goal": 1.47, "seed": 0}
"""nanoGPT's train_shakespeare_char: 5000 iterations, dropout 0.2, lr 1e-3 to 1e-4, beta2 0.99."""


def run(session: Session, done: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Measure where torch finds a GPU."""
    if not _found():
        yield "not_run", "torch finds no GPU on this machine"
        return
    if "124m" not in done:
        those = [Contestant("craft", "step", "bf16"), *(Contestant("plain", way, "bf16") for way in ("compiled", "eager"))]
        yield "124m", steady.measure(session, GPU_CASES["124m"], those, together=1, device="cuda")
    if session.text is None:
        yield "recipe not_run", "no text was given (--text PATH of tiny Shakespeare)"
        return
    for one in (Contestant("craft", "step", "bf16"), Contestant("plain", "compiled", "bf16")):
        if one.name not in done:
            yield one.name, _recipe(session, one)


def _found() -> bool:
    import torch  # the parent alone never computes on it

    return torch.cuda.is_available()


def _recipe(session: Session, one: Contestant) -> dict[str, Any]:
    assert session.text is not None
    folder = session.out / "tokens"
    vocabulary = quality.tokens(session.text.read_text(encoding="utf-8"), folder)
    case = attrs.evolve(GPU_CASES["char-10.7m"], vocabulary=vocabulary)
    options = {**_RECIPE, "tokens": str(folder)}
    with session.empty() as caches:
        worker = session.worker(one, case, caches=caches, job="quality", device="cuda", options=options)
        try:
            answer = worker.hear(3600)
            return {**answer, "seconds": time.monotonic() - worker.began - answer["evaluating"]}
        except NotRun as reason:
            return {"not_run": str(reason)}
        finally:
            worker.end()
