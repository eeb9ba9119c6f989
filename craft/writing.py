"""Let a task's model write text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch

from craft import generate, param, tree
from craft.engine import Engine
from craft.errors import UsageError
from craft.step import Task

__all__ = ["worth_compiling", "write"]


_WAIT = 12.0
"""Seconds that a program of one position takes to compile, with an empty cache on two cores."""


def worth_compiling(spec: Any, tokens: int) -> bool:
    """Tell whether so many tokens win back the wait for a compiler: it saves calls in each layer, and reads of the weights."""
    layers = max((one.layers for one in tree.leaves(spec)), default=0)
    return tokens * (4e-4 * layers + 1.5e-10 * param.count(spec)) > _WAIT


def write(
    task: Task,
    params: Any,
    engine: Engine,
    prompt: str,
    tokens: int,
    sampling: generate.Sampling,
    *,
    compiled: bool = False,
    say: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """Yield what the model writes on from a prompt, piece by piece.

    Parameters
    ----------
    task, params
        What writes.
    engine
        Where it is computed.
    prompt
        What it goes on from.
    tokens
        How many tokens it writes.
    sampling
        How they are drawn.
    compiled
        Whether one position is read by a compiled program; the prompt never is.
    say
        Told what is being done while the program is compiled.

    Raises
    ------
    UsageError
        If the task has no model that generates, the prompt is empty, or it has characters that the model does not know.
    """
    if task.model is None or task.tokenizer is None or not task.context:
        raise UsageError("this task has no model of text; generation needs its model, tokenizer and context")
    try:
        ids = task.tokenizer.encode(prompt)
    except ValueError as error:
        raise UsageError(f"the prompt does not fit the model: {error}") from error
    if not len(ids):
        raise UsageError("got an empty prompt; give at least one character to go on from")
    token = None
    if compiled:
        params = generate.laid_out(params, task.model.spec, engine.compute)
        room = task.model.memory(1, task.context, engine.compute, engine.device)
        example = torch.zeros(1, 1, dtype=torch.int64, device=engine.device)
        token = engine.compiled(generate.one_token(task.model), params, example, room, say=say)
    drawn = generate.decode(
        task.model,
        params,
        ids[None].to(engine.device),
        vocabulary=task.tokenizer.size,
        context=task.context,
        sampling=sampling,
        advance=engine.function(task.model.advance),
        token=token,
        dtype=engine.compute,
    )
    stream = task.tokenizer.stream()
    for row in islice(drawn, tokens):
        yield stream.push([int(row)])
    yield stream.finish()
