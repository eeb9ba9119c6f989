"""Statistics of measurements taken in turns: ratios within a round, so that a noisy machine hits both sides alike."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import attrs

__all__ = ["Ratio", "ratio", "spread"]


@attrs.frozen
class Ratio:
    """How many times as long one took as another, over the rounds that both took part in."""

    median: float
    """Median of the rounds' ratios."""
    least: float
    """Smallest of them."""
    rounds: int
    """Number of rounds."""


def ratio(over: Sequence[float], under: Sequence[float]) -> Ratio:
    """Compare two contestants round by round.

    Parameters
    ----------
    over, under
        One number a round, in the same order, all positive.

    Returns
    -------
    Ratio of `over` to `under`.

    Raises
    ------
    ValueError
        If there are no rounds, or one has more than the other.
    """
    if not over or len(over) != len(under):
        raise ValueError(f"got {len(over)} and {len(under)} rounds; expected as many of both, and at least one")
    each = [a / b for a, b in zip(over, under, strict=True)]
    return Ratio(statistics.median(each), min(each), len(each))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, least and largest of a few measurements, by name."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
