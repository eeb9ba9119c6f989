"""Mixers: what a block of a sequence model is made of."""

from craft.mixers.attention import Attention as Attention
from craft.mixers.feedforward import FeedForward as FeedForward
from craft.mixers.recurrence import Recurrence as Recurrence

Mixer = Attention | FeedForward | Recurrence
"""Any mixer's configuration; each has `build(width) -> Model`."""
