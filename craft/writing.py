"""Let a task's model write text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from craft import generate
from craft.engine import Engine
from craft.errors import UsageError
from craft.step import Task

__all__ = ["write"]


def write(task: Task, params: Any, engine: Engine, prompt: str, tokens: int, sampling: generate.Sampling) -> Iterator[str]:
    """Yield what the model writes on from a prompt, piece by piece.

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
    drawn = generate.decode(
        task.model,
        params,
        ids[None].to(engine.device),
        vocabulary=task.tokenizer.size,
        context=task.context,
        sampling=sampling,
        advance=engine.function(task.model.advance),
        dtype=engine.compute,
    )
    stream = task.tokenizer.stream()
    for row in islice(drawn, tokens):
        yield stream.push([int(row)])
    yield stream.finish()
