"""Means over seeds with Student's confidence intervals. Student 1908, doi:10.2307/2331554."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Interval", "interval", "quantile"]

_LEVEL = 0.95


class Interval(NamedTuple):
    """A mean, half the width of its 95 % interval (None for one value), and the number of values."""

    mean: float
    half: float | None
    n: int


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of values and its 95 % interval, taking them as independent draws of a normal distribution.

    Parameters
    ----------
    values
        At least one number.

    Examples
    --------
    >>> mean, half, n = interval([1.0, 2.0, 3.0])
    >>> mean, round(half, 3), n
    (2.0, 2.484, 3)
    """
    n = len(values)
    if not all(math.isfinite(value) for value in values):
        return Interval(math.nan, None, n)
    mean = statistics.fmean(values)
    return Interval(mean, None if n < 2 else quantile(n - 1) * statistics.stdev(values) / math.sqrt(n), n)


@functools.cache
def quantile(freedom: int) -> float:
    """Return the t that a variable with so many degrees of freedom stays within, on both sides, with probability 0.95."""
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < _LEVEL else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """Return P(|T| <= t), by the finite series of Abramowitz and Stegun 1964, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    total, term = 0.0, cosine if odd else 1.0
    for k in range(odd, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (k + 1) / (k + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
