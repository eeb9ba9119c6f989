"""Measure a state on a split, batch by batch, weighted by what each batch stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from craft.engine import Engine
from craft.step import Evaluation

__all__ = ["measure"]


def measure(
    evaluation: Evaluation,
    state: Any,
    engine: Engine,
    *,
    split: str = "validation",
    batches: int | None = None,
    program: Callable[..., Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Return the weighted means over a split, by name.

    Parameters
    ----------
    evaluation
        What is measured.
    state
        The state on the engine's device.
    engine
        Where it is computed.
    split
        `train`, `validation` or `test`.
    batches
        Take only so many, evenly spread over the split; none: all of it.
    program
        `engine.function(evaluation.measure)`, to be used again and again; none: one is made.
    progress
        Called with the number of batches that are done.
    """
    run = program or engine.function(evaluation.measure)
    sums: dict[str, tuple[float, float]] = {}
    for done, batch in enumerate(_spread(evaluation, split, batches), start=1):
        for name, (total, weight) in run(state, engine.send(batch)).items():
            so_far = sums.get(name, (0.0, 0.0))
            sums[name] = (so_far[0] + float(total), so_far[1] + float(weight))
        if progress is not None:
            progress(done)
    means = {name: total / weight if weight else float("nan") for name, (total, weight) in sums.items()}
    return evaluation.summary(means, split)


def _spread(evaluation: Evaluation, split: str, number: int | None) -> Iterable[Any]:
    """Choose batches from the whole split: its beginning alone may be easier, or harder, than the rest."""
    if number is None:
        return evaluation.batches(split)
    total = sum(1 for _ in evaluation.batches(split))
    chosen = {place * total // number for place in range(number)}
    return (batch for place, batch in enumerate(evaluation.batches(split)) if place in chosen)
