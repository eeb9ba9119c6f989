"""A model of text that is small and far from even, and a task around it."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

from craft import data, evaluate, param, tree
from craft.engine import Engine
from craft.mixers import Attention, FeedForward, Mixer, Recurrence
from craft.models import Sequence
from craft.step import Task
from craft.types import Batch, Tree

CONTEXT = 12
PATTERNS: dict[str, tuple[Mixer, ...]] = {
    "attention": (Attention(heads=2), FeedForward()),
    "recurrent": (Recurrence(), FeedForward()),
    "hybrid": (Recurrence(), Attention(heads=2)),
}


class Text:
    """A text as batches: each token but the first is a target once, and padding counts nothing."""

    fingerprint = ""

    def __init__(self, ids: torch.Tensor, context: int, size: int) -> None:
        self.ids, self.context, self.size = ids, context, size
        self.tokens = context * size

    def batch(self, step: int) -> Tree:
        return next(iter(self.split("train")))

    def describe(self) -> dict[str, Any]:
        return {}

    def bytes_per_token(self, split: str) -> float:
        return 1.0

    def split(self, name: str) -> Iterable[Batch]:
        assert name in ("train", "validation")
        ids = self.ids[: len(self.ids) // 2] if name == "validation" else self.ids
        samples = -(-(len(ids) - 1) // self.context)
        samples += -samples % self.size
        place = torch.arange(samples)[:, None] * self.context + torch.arange(self.context + 1)
        cut, known = ids[place.clamp(max=len(ids) - 1)], (place[:, 1:] < len(ids)).float()
        for start in range(0, samples, self.size):
            part = slice(start, start + self.size)
            yield Batch(cut[part, :-1], cut[part, 1:], known[part], torch.arange(start, start + self.size))


@pytest.fixture
def engine() -> Engine:
    """Compute in fp32 on one thread, uncompiled."""
    return Engine(torch.device("cpu"), torch.float32, "none", 1)


@pytest.fixture
def make_task() -> Callable[..., tuple[Task, Tree]]:
    """Make a task of a family and its parameters; the characters are lower-case letters, the space and the line end."""

    def make(family: str = "attention", context: int = CONTEXT, tokenizer: Any = None) -> tuple[Task, Tree]:
        tokenizer = tokenizer or data.CharacterTokenizer("".join(sorted("\n " + string.ascii_lowercase)))
        model = Sequence(width=8, depth=2, pattern=PATTERNS[family]).build(tokenizer.size)
        source = torch.Generator().manual_seed(3)
        params = tree.map(lambda leaf: leaf + 0.6 * torch.randn(leaf.shape, generator=source), param.materialise(model.spec, 0))
        rare = torch.rand(200, generator=source).pow(4)  # small ids come often
        text = Text((rare * tokenizer.size).long(), context, 3)
        task = Task(
            step=lambda state, batch: (state, {}),
            init=lambda seed: {},
            data=text,
            steps=1,
            model=model,
            tokenizer=tokenizer,
            context=context,
            evaluation=evaluate.next_token_evaluation(model, text, lambda state: state["params"]),
            params=lambda state: state["params"],
        )
        return task, params

    return make
