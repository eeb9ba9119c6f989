"""Greedy continuation of many prompts at once, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from craft import tree
from craft.engine import Engine
from craft.errors import UsageError
from craft.step import Task
from craft.types import Context, Tensor, Tree

__all__ = ["Prompt", "continued", "fitting"]


class Prompt(NamedTuple):
    """What is gone on from.

    Attributes
    ----------
    ids_N
        Token ids, int64, at least one.
    tokens
        How many tokens are written at most.
    """

    ids_N: Tensor
    tokens: int


def fitting(prompt: Prompt, context: int) -> Tensor:
    """Return as much of a prompt's end as leaves room for what is written, but half a context at least; int64 of shape (T,)."""
    return prompt.ids_N[-max(1, context - prompt.tokens + 1, context // 2) :]


def continued(
    task: Task,
    params: Tree,
    engine: Engine,
    prompts: Sequence[Prompt],
    ended: Callable[[int, list[int]], bool],
    progress: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Write on from prompts, always by the likeliest token, until that is the one that ends a document.

    Prompts of one length are read together, then all go on together through one memory. When a row's memory is full, the second
    half of its text is read again into an empty one, as `generate.decode` does it.

    Parameters
    ----------
    task
        A task with a model of sequences.
    params
        The parameters, on the engine's device.
    engine
        Where it is computed.
    prompts
        What is gone on from; of each, what is `fitting`.
    ended
        (number of the prompt, ids that were written) -> whether that is all.
    progress
        Called with the number of prompts that are done.

    Returns
    -------
    The ids that were written, by prompt, without that one.

    Raises
    ------
    UsageError
        If the task has no model of text.
    """
    if task.model is None or not task.context:
        raise UsageError("this task has no model of text; writing needs its model and context")
    writer = _Writer(task, params, engine, prompts, ended)
    waiting = {row: fitting(prompt, task.context) for row, prompt in enumerate(prompts) if prompt.tokens > 0}
    size = max(1, task.data.tokens // task.context)
    while waiting:
        rows = sorted(waiting, key=lambda row: len(waiting[row]))[:size]  # like lengths stay together longest
        waiting |= writer.go({row: waiting.pop(row) for row in rows})
        if progress is not None:
            progress(len(prompts) - len(waiting))
    return writer.written


class _Writer:
    """One call of `continued`: what is written so far, and how it goes on."""

    def __init__(
        self, task: Task, params: Tree, engine: Engine, prompts: Sequence[Prompt], ended: Callable[[int, list[int]], bool]
    ) -> None:
        assert task.model is not None
        self.model, self.context, self.params, self.engine = task.model, task.context, params, engine
        self.prompts, self.ended = prompts, ended
        self.written: list[list[int]] = [[] for _ in prompts]
        self.advance = engine.function(task.model.advance)
        self.end = task.tokenizer.end if task.tokenizer else None

    def go(self, texts: dict[int, Tensor]) -> dict[int, Tensor]:
        """Write until each row is at its end or its memory is full; return what is to be read again."""
        rows, logits_BV, memory = self._read(texts)
        held = {row: len(texts[row]) for row in rows}
        again: dict[int, Tensor] = {}
        while True:
            next_B = logits_BV.argmax(-1)
            kept = []
            for place, (row, token) in enumerate(zip(rows, next_B.tolist(), strict=True)):
                if token == self.end:
                    continue
                self.written[row].append(token)
                if self._is_done(row):
                    continue
                if held[row] == self.context:
                    again[row] = self._second_half(row)
                    continue
                held[row] += 1
                kept.append(place)
            if not kept:
                return again
            if len(kept) < len(rows):
                rows = [rows[place] for place in kept]
                next_B, memory = _taken((next_B, memory), torch.tensor(kept, device=next_B.device))
            logits_B1V, memory = self.advance(self.params, next_B[:, None], memory, Context())
            logits_BV = logits_B1V[:, 0]

    def _is_done(self, row: int) -> bool:
        return len(self.written[row]) >= self.prompts[row].tokens or self.ended(row, self.written[row])

    def _second_half(self, row: int) -> Tensor:
        whole_N = torch.cat((self.prompts[row].ids_N, torch.tensor(self.written[row], dtype=torch.int64)))
        return whole_N[-max(1, self.context // 2) :]

    def _read(self, texts: dict[int, Tensor]) -> tuple[list[int], Tensor, Tree]:
        """Read the texts, those of one length at once; return the rows in their new order, the last logits and one memory."""
        rows, logits, memories = [], [], []
        for length in sorted({len(text_T) for text_T in texts.values()}):
            group = [row for row, text_T in texts.items() if len(text_T) == length]
            text_BT = torch.stack([texts[row] for row in group]).to(self.engine.device)
            empty = self.model.memory(len(group), self.context, self.engine.compute, self.engine.device)
            logits_BTV, memory = self.advance(self.params, text_BT, empty, Context())
            rows += group
            logits.append(logits_BTV[:, -1])
            memories.append(memory)
        return rows, torch.cat(logits), tree.map(lambda *leaves: torch.cat(leaves), *memories)


def _taken(values: Tree, place_N: Tensor) -> Tree:
    return tree.map(lambda leaf: leaf[place_N], values)
