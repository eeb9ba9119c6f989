"""Intervals against the tables of every textbook."""

import math
import random

import pytest

from craft.report.interval import interval, quantile

TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 9: 2.2622, 10: 2.2281, 30: 2.0423, 120: 1.9799}


@pytest.mark.parametrize(("freedom", "expected"), TABLE.items())
def test_quantiles(freedom, expected):
    assert quantile(freedom) == pytest.approx(expected, abs=6e-5)


def test_nine_of_ten_intervals_and_more_hold_the_truth():
    draw = random.Random(0)
    held = 0
    for _ in range(2000):
        mean, half, _ = interval([draw.gauss(3, 2) for _ in range(3)])
        assert half is not None
        held += abs(mean - 3) <= half
    assert 0.935 <= held / 2000 <= 0.965


def test_one_value_has_no_interval_and_a_broken_one_no_mean():
    assert interval([2.5]) == (2.5, None, 1)
    mean, half, n = interval([1.0, math.nan])
    assert (math.isnan(mean), half, n) == (True, None, 2)
    assert interval([1.0, 1.0]) == (1.0, 0.0, 2)
