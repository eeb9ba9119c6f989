"""The next batch, made while this one is computed with."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

__all__ = ["Prefetch"]


class Prefetch:
    """Batches by their step, one ahead, on a thread of its own; an error comes where its batch is asked for.

    Parameters
    ----------
    batch
        Step -> batch, a pure function.
    steps
        Number of steps: nothing is made beyond the last one.
    """

    def __init__(self, batch: Callable[[int], Any], steps: int) -> None:
        self._batch, self._steps = batch, steps
        self._pool = ThreadPoolExecutor(1, "batches")
        self._next: tuple[int, Future[Any]] | None = None

    def __call__(self, step: int) -> Any:
        """Return the batch of a step."""
        ready = self._next[1].result() if self._next and self._next[0] == step else self._batch(step)
        after = step + 1
        self._next = (after, self._pool.submit(self._batch, after)) if after < self._steps else None
        return ready

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
