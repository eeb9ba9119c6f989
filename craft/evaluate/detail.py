"""Where a model of sequences loses: by position, by how often a target was trained on, and where its confidence misleads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from craft import tree
from craft.engine import Engine
from craft.errors import UsageError
from craft.evaluate.breakdown import AMOUNTS, BINS, EDGES, Sums, breakdown, group_by_count
from craft.step import Task
from craft.types import Batch, Tensor

__all__ = ["detail", "frequencies"]


def detail(
    task: Task,
    state: Any,
    engine: Engine,
    *,
    split: str = "validation",
    count_V: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Judge a state on a whole split, in one pass.

    The model is calibrated where, of the targets for which its likeliest token has probability p, a share p is that token. The
    expected calibration error is the mean distance of the two over bins of equal width, weighted by their targets: Guo et al.
    2017, arXiv:1706.04599.

    Parameters
    ----------
    task
        A task with a model of sequences and an evaluation.
    state
        The state on the engine's device.
    engine
        Where it is computed.
    split
        `train`, `validation` or `test`.
    count_V
        How often each token was trained on, int64; none: the targets of the training split are counted, where the task's data
        has `split`, else frequencies are left out.
    progress
        Called with the number of batches that are done.

    Returns
    -------
    JSON: the means over all targets (`weight` is their number, `loss` is in nats), `calibration_error`, and lists of the same
    means: `positions` (from 1, in the context or document), `frequencies` (occurrences `from` and `to`, and how many different
    `tokens` have as many) and `bins` (of confidence, above `from` up to `to`). A mean over nothing, and one that is not finite,
    is None.

    Raises
    ------
    UsageError
        If the task has no model of sequences, or no evaluation.
    """
    if task.model is None or task.evaluation is None:
        raise UsageError("this task has no model of sequences with an evaluation; detail needs its model and held-out batches")
    count_V = _counted(task) if count_V is None else count_V
    group_V = None if count_V is None else group_by_count(count_V).to(engine.device)
    run = engine.function(breakdown(task.model, task.params))
    total: Sums | None = None
    for done, batch in enumerate(task.evaluation.batches(split), start=1):
        if not isinstance(batch, Batch):
            raise UsageError(f"got batches of {type(batch).__name__}; detail needs those of a model of sequences, types.Batch")
        made = run(state, engine.send(batch), group_V)
        total = made if total is None else tree.map(torch.add, total, made)
        if progress is not None:
            progress(done)
    if total is None:
        raise UsageError(f"got no batch of the split {split!r}; expected at least one")
    return _report(tree.to(total, "cpu"), count_V)


def frequencies(batches: Iterable[Batch], vocabulary: int) -> Tensor:
    """Count how often each token is a target.

    Parameters
    ----------
    batches
        Batches that cover a split once; targets of weight 0 do not count.
    vocabulary
        Number of different tokens.

    Returns
    -------
    int64 of shape (V,).
    """
    count_V = torch.zeros(vocabulary, dtype=torch.int64)
    for batch in batches:
        count_V += torch.bincount(batch.targets_BT[batch.weights_BT > 0], minlength=vocabulary)
    return count_V


def _counted(task: Task) -> Tensor | None:
    split = getattr(task.data, "split", None)
    return None if split is None or task.tokenizer is None else frequencies(split("train"), task.tokenizer.size)


def _report(sums: Sums, count_V: Tensor | None) -> dict[str, Any]:
    bins = [{"from": place / BINS, "to": (place + 1) / BINS, **_means(row_A)} for place, row_A in enumerate(sums.confidence_MA)]
    weight, _, hits, sure, _ = sums.confidence_MA.unbind(-1)
    return {
        **_means(sums.position_TA.sum(0)),
        "calibration_error": _finite((hits - sure).abs().sum(), weight.sum()),
        "positions": [{"position": place, **_means(row_A)} for place, row_A in enumerate(sums.position_TA, start=1)],
        "frequencies": [] if count_V is None else _by_frequency(sums.seen_NA, count_V),
        "bins": bins,
    }


def _by_frequency(seen_NA: Tensor, count_V: Tensor) -> list[dict[str, Any]]:
    """Describe the groups that have a token."""
    tokens_N = torch.bincount(group_by_count(count_V), minlength=len(EDGES) + 1)
    ends = zip((0, *EDGES), (*(edge - 1 for edge in EDGES), None), strict=True)
    rows = zip(ends, tokens_N.tolist(), seen_NA, strict=True)
    return [{"from": first, "to": last, "tokens": tokens, **_means(row_A)} for (first, last), tokens, row_A in rows if tokens]


def _means(row_A: Tensor) -> dict[str, float | None]:
    weight = row_A[0]
    return {"weight": float(weight), **{name: _finite(row_A[place], weight) for place, name in enumerate(AMOUNTS) if place}}


def _finite(total: Tensor, weight: Tensor) -> float | None:
    mean = float(total / weight)
    return mean if math.isfinite(mean) else None
