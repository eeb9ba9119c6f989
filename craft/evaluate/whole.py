"""Measure a state on a split, batch by batch, weighted by what each batch stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from craft.engine import Engine
from craft.step import Evaluation

__all__ = ["measure", "measure_each"]


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
    return measure_each(evaluation, state, engine, run, split=split, batches=batches, progress=progress)[0]


def measure_each(
    evaluation: Evaluation,
    states: Any,
    engine: Engine,
    program: Callable[..., Any],
    *,
    split: str = "validation",
    batches: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, float]]:
    """Return the weighted means over a split of each of stacked states.

    Parameters
    ----------
    states
        One state, or stacked ones.
    program
        (states, batch) -> {name: (weighted sum, weight)}, 0-d for one state, else one value a state.
    evaluation, engine, split, batches, progress
        As for `measure`.
    """
    sums: dict[str, list[tuple[float, float]]] = {}
    for done, batch in enumerate(_spread(evaluation, split, batches), start=1):
        for name, (total, weight) in program(states, engine.send(batch)).items():
            pairs = list(zip(total.reshape(-1).tolist(), weight.expand_as(total).reshape(-1).tolist(), strict=True))
            before = sums.get(name, [(0.0, 0.0)] * len(pairs))
            sums[name] = [(a + total, b + weight) for (a, b), (total, weight) in zip(before, pairs, strict=True)]
        if progress is not None:
            progress(done)
    count = max((len(pairs) for pairs in sums.values()), default=1)
    means = [{name: _mean(*pairs[place]) for name, pairs in sums.items()} for place in range(count)]
    return [evaluation.summary(one, split) for one in means]


def _mean(total: float, weight: float) -> float:
    return total / weight if weight else float("nan")


def _spread(evaluation: Evaluation, split: str, number: int | None) -> Iterable[Any]:
    """Choose batches from the whole split: its beginning alone may be easier, or harder, than the rest."""
    if number is None:
        return evaluation.batches(split)
    total = sum(1 for _ in evaluation.batches(split))
    chosen = {place * total // number for place in range(number)}
    return (batch for place, batch in enumerate(evaluation.batches(split)) if place in chosen)
