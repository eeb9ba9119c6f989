"""What a run will take on this machine: memory of the process or the device, and the time of a step.

The tensors and the work are told by a trace (`estimate`). Rates of this machine are measured when they are asked for; the
constants below were fitted to runs of 1 to 100 million parameters on two cores of an AMD EPYC, the same that the prediction
was compared with; the start and the seconds of compiling were set by hand.
"""

from __future__ import annotations

import time
from functools import cache

import attrs
import torch

from craft.engine.allocator import resident_bytes
from craft.engine.core import Engine
from craft.engine.device import products
from craft.engine.estimate import Step, step_of
from craft.step import Task
from craft.types import Tree

__all__ = ["Prediction", "Rates", "predict", "rates"]

_LIBRARIES = 24 << 20
"""Bytes that the first products and threads take."""
_SLACK = {"none": 0.6, "block": 0.08, "step": 0.08}
"""Share of what lives within a step that is lost between allocations, by mode."""
_SCATTERED = {"none": 0.6, "block": 0.1, "step": 0.1}
"""The same where activations are computed again, and much smaller things come and go."""
_COMPILER = 240 << 20
"""Bytes that the compiler's front end leaves behind in a first start."""
_START = 3.0
"""Seconds from the command to the first step."""
_HEADERS, _PER_NODE = 8.0, 0.015
"""Seconds that a compiler takes at least, and for each operation of the traced step."""


@attrs.frozen
class Prediction:
    """What a run will take."""

    step: Step
    """Its step."""
    process: int
    """Bytes of the process without the state: libraries, data; 0 on a device with memory of its own."""
    slack: int
    """Bytes between allocations, and of buffers that the libraries keep."""
    peak: int
    """Largest bytes of a run whose programs are built."""
    first: int
    """Largest bytes of a run that builds them first."""
    seconds: float
    """Of one step."""
    start: float
    """Seconds until the first step, where the program is kept from before."""
    first_start: float
    """The same where it is compiled first."""


@attrs.frozen
class Rates:
    """What a machine can do."""

    narrow: float
    """Floating-point operations a second in products of 16 bits."""
    wide: float
    """The same in 32 bits."""
    memory: float
    """Bytes a second that are read and written."""


def predict(task: Task, machine: Engine, state: Tree | None = None, process: int = 0) -> Prediction:
    """Predict a run.

    Parameters
    ----------
    task, machine
        What runs, and where and how.
    state
        Its first state, with or without content; made without content where it is not given.
    process
        Bytes of the process before there was a state; measured where it is not given.
    """
    apart = machine.device.type != "cpu"
    process = 0 if apart else process or resident_bytes()
    step = step_of(task, state, mode=machine.mode, compute=machine.compute, rematerialise=machine.rematerialise)
    share = (_SCATTERED if machine.rematerialise else _SLACK)[machine.mode]
    slack = _LIBRARIES + int(share * step.transient)
    peak = process + step.peak + slack
    first = peak if machine.mode == "none" or apart else peak + _COMPILER
    each = seconds(step, machine.mode, rates(machine.device))
    compiling = 0.0 if machine.mode == "none" else _HEADERS + _PER_NODE * step.nodes
    return Prediction(step, process, slack, peak, first, each, _START, _START + compiling)


_COSTS = {"none": (0.94, 1.24, 2.0, 0.0), "block": (1.36, 0.72, 2.3, 5.5e-6), "step": (1.36, 0.72, 2.3, 5.5e-6)}
"""Times that the best rates promise, as multiples: of products, of products in batches, of the memory; seconds a pass."""


def seconds(step: Step, mode: str, rate: Rates) -> float:
    """Return the seconds of a step: what its products take, what its memory takes, and what each pass costs beside."""
    product, batch, memory, each = _COSTS[mode]
    work = step.work
    share = work.batched / max(work.narrow + work.wide, 1.0)
    products = work.narrow / rate.narrow + work.wide / rate.wide
    return products * ((1 - share) * product + share * batch) + work.moved / rate.memory * memory + work.calls * each


@cache
def rates(device: torch.device) -> Rates:
    """Measure a machine, in a quarter of a second."""
    return Rates(products(torch.bfloat16), products(torch.float32), _bandwidth(device))


def _bandwidth(device: torch.device, size: int = 1 << 23, tries: int = 5) -> float:
    values = torch.zeros(size, device=device)
    best = float("inf")
    for _ in range(tries):
        start = time.perf_counter()
        values.add_(1.0)
        best = min(best, time.perf_counter() - start)
    return 2 * values.nbytes / best
