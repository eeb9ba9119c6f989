"""NanoGPT's recipe, for whoever follows it: random windows, a cosine, and the whole validation split now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tools.bench.setup import Setup

__all__ = ["follow", "rate"]

PEAK, FLOOR, WARMUP = 1e-3, 1e-4, 100
"""Largest and last learning rate; updates of the warm-up."""


def rate(step: int, updates: int) -> float:
    """Return the learning rate of an update: a straight climb, then half a cosine."""
    if step < WARMUP:
        return PEAK * (step + 1) / (WARMUP + 1)
    return FLOOR + 0.5 * (1.0 + math.cos(math.pi * (step - WARMUP) / (updates - WARMUP))) * (PEAK - FLOOR)


def follow(
    setup: Setup, update: Callable[[int, Tensor, Tensor], Any], judge: Callable[[Tensor, Tensor], float]
) -> dict[str, Any]:
    """Train until the validation loss is reached or the updates are spent.

    Parameters
    ----------
    setup
        `setup.options` holds `updates`, `every` (updates between evaluations), `goal` (nats), `seed`, and `tokens`, a
        folder with train.npy, validation.npy and test.npy.
    update
        (number of the update, inputs, targets): makes one.
    judge
        (inputs, targets) -> their mean loss, nats.

    Returns
    -------
    The best loss on the whole validation split, whether it reached the goal, the loss on the test split at the end, and
    the seconds that this and the evaluations before the last one took: they are no part of the time to quality.
    """
    asked, case = setup.options, setup.case
    train_N, held_N = (_tokens(setup, name) for name in ("train", "validation"))
    draw = torch.Generator().manual_seed(asked["seed"])
    earlier, last, best, done = 0.0, 0.0, math.inf, 0
    trail: list[list[float]] = []
    while done < asked["updates"] and best > asked["goal"]:
        start_B = torch.randint(len(train_N) - case.context, (case.batch,), generator=draw)
        ids_BN = torch.stack([train_N[i : i + case.context + 1] for i in start_B.tolist()]).to(setup.device)
        update(done, ids_BN[:, :-1].contiguous(), ids_BN[:, 1:].contiguous())
        done += 1
        if done % asked["every"] == 0 or done == asked["updates"]:
            began, earlier = time.perf_counter(), earlier + last
            trail.append([done, _held_out(judge, held_N, case.context)])
            last, best = time.perf_counter() - began, min(best, trail[-1][1])
    began = time.perf_counter()
    test = _held_out(judge, _tokens(setup, "test"), case.context)
    apart = earlier + time.perf_counter() - began
    found = {"loss": best, "reached": best <= asked["goal"], "updates": done, "evaluating": apart}
    return {**found, "test": test, "trail": trail}


def _tokens(setup: Setup, name: str) -> Tensor:
    ids_N = torch.from_numpy(np.load(f"{setup.options['tokens']}/{name}.npy"))
    return ids_N if name == "train" else ids_N.to(setup.device)


@torch.no_grad()
def _held_out(judge: Callable[[Tensor, Tensor], float], tokens_N: Tensor, context: int, together: int = 64) -> float:
    """Measure the whole split in windows side by side; a last piece shorter than a window is left out."""
    count = (len(tokens_N) - 1) // context
    inputs = tokens_N[: count * context].view(count, context)
    targets = tokens_N[1 : count * context + 1].view(count, context)
    pieces = zip(inputs.split(together), targets.split(together), strict=True)
    return sum(judge(x_BT, y_BT) * len(x_BT) for x_BT, y_BT in pieces) / count
