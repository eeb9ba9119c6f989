"""Subword model of twelve million parameters, two of them in its table, on all installed Python sources.

The learning rate is that of `char_1m`, carried over by the multipliers of the widths (`model.tuned_width`).

Run: python -m experiments.subword_10m
"""

from __future__ import annotations

import attrs

from craft import cli, config
from craft.data import Text
from craft.mixers import Attention, FeedForward
from craft.models import Sequence
from experiments.char_1m import Char1M

__all__ = ["PRESETS", "Subword10M"]


@attrs.frozen
class Subword10M(Char1M):
    """One run, described completely."""

    steps: int = attrs.field(default=4000, validator=config.at_least(1))
    """Updates in the whole run."""
    batch: int = attrs.field(default=32, validator=config.at_least(1))
    """Samples of one update."""
    model: Sequence = Sequence(width=384, depth=6, pattern=(Attention(heads=12), FeedForward()), tied=True, tuned_width=128)
    """The model."""
    data: Text = Text(source="python", division="hash", tokenizer="bpe:4096")
    """The text."""


PRESETS = {"smoke": Subword10M(steps=2, batch=2, data=Text(tokenizer="bpe:260"))}

if __name__ == "__main__":
    cli.main(Subword10M, presets=PRESETS)
