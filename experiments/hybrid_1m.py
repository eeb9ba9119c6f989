"""The same character model with a recurrence in place of every other attention: two kinds of memory in one model.

Run: python -m experiments.hybrid_1m
"""

from __future__ import annotations

import attrs

from craft import cli
from craft.mixers import Attention, FeedForward, Recurrence
from craft.models import Sequence
from experiments.char_1m import Char1M

__all__ = ["PRESETS", "Hybrid1M"]


@attrs.frozen
class Hybrid1M(Char1M):
    """One run, described completely."""

    model: Sequence = Sequence(pattern=(Recurrence(), FeedForward(), Attention(), FeedForward()), depth=2)
    """The model: two blocks of a recurrence and an attention, each followed by a feed-forward."""


PRESETS = {"smoke": Hybrid1M(steps=2)}

if __name__ == "__main__":
    cli.main(Hybrid1M, presets=PRESETS)
