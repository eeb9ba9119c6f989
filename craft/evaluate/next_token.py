"""How well a model of sequences predicts text that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from craft.losses import next_token
from craft.step import Evaluation
from craft.types import Context, Model, Tensor, Tree

__all__ = ["Splits", "next_token_evaluation"]


class Splits(Protocol):
    """Text that is held out: what `data.Text.open` returns."""

    def split(self, name: str) -> Iterable[Tree]:
        """Return the batches of `types.Batch` that cover a split once."""
        ...

    def bytes_per_token(self, name: str) -> float:
        """Return how many bytes of UTF-8 a token of a split stands for, in the mean."""
        ...


def next_token_evaluation(model: Model, text: Splits, params: Callable[[Any], Tree]) -> Evaluation:
    """Measure loss and bits a token, perplexity, bits a byte and accuracy on a split.

    Bits a byte are the loss times the tokens of the split, over its bytes: the only one of these that compares models whose
    tokens differ. Of a part of a split they take the whole split's bytes a token.

    Parameters
    ----------
    model
        A model of sequences.
    text
        What it is measured on.
    params
        State -> the parameters to judge.
    """
    loss = next_token(model)

    def measure(state: Any, batch: Tree) -> dict[str, tuple[Tensor, Tensor]]:
        lent = Context(hyper=getattr(state, "hyper", {}), buffers=getattr(state, "buffers", ()))
        value, extras = loss(params(state), batch, lent)
        weight = extras["weight"]
        return {"loss": (value * weight, weight), "accuracy": (extras["accuracy"] * weight, weight)}

    def summary(means: dict[str, float], split: str) -> dict[str, float]:
        bits = means["loss"] / math.log(2)
        perplexity = math.exp(min(means["loss"], 700.0))
        return {**means, "bits": bits, "bits_per_byte": bits / text.bytes_per_token(split), "perplexity": perplexity}

    return Evaluation(measure, text.split, summary)
