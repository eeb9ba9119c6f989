"""How well a model of sequences predicts text that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from craft.losses import next_token
from craft.step import Evaluation
from craft.types import Context, Model, Tensor, Tree

__all__ = ["next_token_evaluation"]


def next_token_evaluation(model: Model, split: Callable[[str], Iterable[Tree]], params: Callable[[Any], Tree]) -> Evaluation:
    """Measure the loss (nats and bits a token) and the accuracy on a split.

    Parameters
    ----------
    model
        A model of sequences.
    split
        Name -> batches of `types.Batch` that cover the split once.
    params
        State -> the parameters to judge.
    """
    loss = next_token(model)

    def measure(state: Any, batch: Tree) -> dict[str, tuple[Tensor, Tensor]]:
        lent = Context(hyper=getattr(state, "hyper", {}), buffers=getattr(state, "buffers", ()))
        value, extras = loss(params(state), batch, lent)
        weight = extras["weight"]
        return {"loss": (value * weight, weight), "accuracy": (extras["accuracy"] * weight, weight)}

    def summary(means: dict[str, float]) -> dict[str, float]:
        return {**means, "bits": means["loss"] / math.log(2)}

    return Evaluation(measure, split, summary)
