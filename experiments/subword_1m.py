"""Subword model of about a million parameters: few tokens and a tied head, so that the table does not outweigh the rest.

The learning rate is that of `char_1m`, carried over by the multipliers of the widths (`model.tuned_width`).

Run: python -m experiments.subword_1m
"""

from __future__ import annotations

import attrs

from craft import cli, config
from craft.data import Text
from craft.models import Sequence
from experiments.char_1m import Char1M

__all__ = ["PRESETS", "Subword1M"]


@attrs.frozen
class Subword1M(Char1M):
    """One run, described completely."""

    steps: int = attrs.field(default=1000, validator=config.at_least(1))
    """Updates in the whole run."""
    batch: int = attrs.field(default=12, validator=config.at_least(1))
    """Samples of one update."""
    model: Sequence = Sequence(tied=True, tuned_width=128)
    """The model."""
    data: Text = Text(tokenizer="bpe:1024")
    """The text."""


PRESETS = {"smoke": Subword1M(steps=2, batch=2, data=Text(tokenizer="bpe:260"))}

if __name__ == "__main__":
    cli.main(Subword1M, presets=PRESETS)
